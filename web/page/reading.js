// Where the reader is: the end is followed while answers grow, unless the reader has scrolled up.

const main = document.querySelector("main");
const button = document.getElementById("to-end");
const NEAR_PX = 40;
let following = true;
let last = 0; // where it was scrolled to

const distance = () => main.scrollHeight - main.scrollTop - main.clientHeight;

function show() {
  button.hidden = following || distance() < NEAR_PX;
}

export function toEnd() {
  following = true;
  main.scrollTop = main.scrollHeight;
  last = main.scrollTop;
  show();
}

main.addEventListener("scroll", () => {
  if (distance() < NEAR_PX) following = true;
  else if (main.scrollTop < last - 1) following = false; // what shrinks scrolls too, but not away from the end
  last = main.scrollTop;
  show();
}, { passive: true });
new ResizeObserver(() => (following ? toEnd() : show())).observe(document.getElementById("turns"));
new ResizeObserver(() => following && toEnd()).observe(main);
button.addEventListener("click", toEnd);
