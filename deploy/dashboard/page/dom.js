// Functions that find and create elements of the document.

const PART_MS = 3; // of work between two frames
const LONGEST_MS = 100; // that a frame is waited for: a page that is not visible draws none

export const byId = (id) => document.getElementById(id);

/** Create an element with a text and attributes. */
export function make(name, text = "", attributes = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Set the text of a node if it differs, since an assignment replaces its child nodes and has them laid out again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

let partBegan = 0; // as performance.now()

/** Wait until a frame has been drawn, if the work since the last wait has taken long enough to delay the next frame. */
export async function frameDrawn() {
  if (performance.now() - partBegan < PART_MS) return;
  await new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve)); // a task of its own, after the frame's
    setTimeout(resolve, LONGEST_MS);
  });
  partBegan = performance.now();
}
