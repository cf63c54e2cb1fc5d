// Numbers in words for people.

export const count = (n) => n.toLocaleString("en");
export const percent = (part) => `${Math.round(100 * part)} %`;
export const pace = (rate) => `${rate.toFixed(rate < 1 ? 2 : rate < 10 ? 1 : 0)} tokens/s`;

export function size(n_bytes) {
  if (n_bytes < 1e6) return `${Math.ceil(n_bytes / 1e3)} kB`;
  return n_bytes < 1e9 ? `${(n_bytes / 1e6).toFixed(1)} MB` : `${(n_bytes / 1e9).toFixed(2)} GB`;
}

export function clock(seconds) {
  const s = Math.ceil(seconds);
  const parts = [Math.floor(s / 60) % 60, s % 60].map((n) => String(n).padStart(2, "0"));
  return (s < 3600 ? parts : [Math.floor(s / 3600), ...parts]).join(":");
}

// 90061 -> "1 day 1 h"
export function lasting(seconds) {
  const all = [[86400, "day"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = all.findIndex(([unit]) => seconds >= unit);
  if (first < 0) return "0 s";
  const words = [];
  let rest = seconds;
  for (const [unit, name] of all.slice(first, first + 2)) {
    const n = Math.floor(rest / unit);
    rest -= n * unit;
    if (n) words.push(`${n} ${name}${name === "day" && n > 1 ? "s" : ""}`);
  }
  return words.join(" ");
}

const STEPS = { listing: "asking the hub …", waiting: "waiting …", checking: "checking …", installed: "installed" };

// Of a download: how much is there, and how fast the rest comes.
export function progressWords({ state, bytes, total_bytes: total, bytes_per_s: rate, seconds_left: left }) {
  const amount = total ? `${size(bytes)} of ${size(total)}` : "";
  const speed = [rate && `${size(rate)}/s`, Number.isFinite(left) && `${clock(left)} left`].filter(Boolean).join(" · ");
  return { step: STEPS[state] ?? state, amount, speed: STEPS[state] ?? speed };
}

// The same in a bar.
export function showProgress(bar, { bytes, total_bytes: total }) {
  if (total) Object.assign(bar, { max: total, value: bytes });
  else bar.removeAttribute("value");
}
