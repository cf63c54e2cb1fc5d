// Numbers in words for people.

export const count = (n) => n.toLocaleString("en");
export const percent = (part) => `${Math.round(100 * part)} %`;
export const pace = (rate) => `${rate.toFixed(rate < 1 ? 2 : rate < 10 ? 1 : 0)} tokens/s`;

export function size(n_bytes) {
  if (n_bytes < 1e6) return `${Math.ceil(n_bytes / 1e3)} kB`;
  return n_bytes < 1e9 ? `${(n_bytes / 1e6).toFixed(1)} MB` : `${(n_bytes / 1e9).toFixed(2)} GB`;
}

function clock(seconds) {
  const s = Math.ceil(seconds);
  const parts = [Math.floor(s / 60) % 60, s % 60].map((n) => String(n).padStart(2, "0"));
  return (s < 3600 ? parts : [Math.floor(s / 3600), ...parts]).join(":");
}

// 90061 -> "1 day 1 h": at most two units, from the largest on.
export function lasting(seconds) {
  const counts = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60, seconds % 60].map(Math.floor);
  const units = [counts[0] > 1 ? "days" : "day", "h", "min", "s"];
  const first = counts.findIndex(Boolean);
  const words = counts.map((n, i) => n && `${n} ${units[i]}`);
  return words.slice(first, first + 2).filter(Boolean).join(" ") || "0 s";
}

// What is known of something, in a line.
export const facts = (...all) => all.filter(Boolean).join(" · ");

const STEPS = { listing: "asking the hub …", waiting: "waiting …", checking: "checking …", installed: "installed" };

// Of a download: how much is there, and how fast the rest comes.
export function progressWords({ state, bytes, total_bytes: total, bytes_per_s: rate, seconds_left: left }) {
  const amount = total ? `${size(bytes)} of ${size(total)}` : "";
  const speed = facts(rate && `${size(rate)}/s`, Number.isFinite(left) && `${clock(left)} left`);
  return { step: STEPS[state] ?? state, amount, speed: STEPS[state] ?? speed };
}
