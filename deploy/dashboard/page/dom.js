// Functions that find and create elements of the document.

export const byId = (id) => document.getElementById(id);

/** Create an element with a text and attributes. */
export function make(name, text = "", attributes = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
