// Where the reader is: the end is followed while answers grow, unless the reader has scrolled up.
import { $, when } from "./dom.js";

const main = document.querySelector("main");
const NEAR_PX = 40;
let following = true;
let last = 0; // where it was scrolled to

const distance = () => main.scrollHeight - main.scrollTop - main.clientHeight;

function show() {
  $("to-end").hidden = following || distance() < NEAR_PX;
}

export function toEnd() {
  following = true;
  main.scrollTop = main.scrollHeight;
  last = main.scrollTop;
  show();
}

when(main, "scroll", () => {
  if (distance() < NEAR_PX) following = true;
  else if (main.scrollTop < last - 1) following = false; // what shrinks scrolls too, but not away from the end
  last = main.scrollTop;
  show();
}, { passive: true });
new ResizeObserver(() => (following ? toEnd() : show())).observe($("turns"));
new ResizeObserver(() => following && toEnd()).observe(main);
when("to-end", "click", ({ target }) => {
  if (target.matches(":focus-visible")) $("question").focus(); // the button goes
  toEnd();
});
