// Every text of the page, from one catalogue for each language, and numbers as that language writes them.

export const LANGUAGES = ["en", "es"];
let catalogue = {};
let language = "en";

/** Makes a catalogue the one that `t` reads. */
export function setTexts(name, texts) {
  language = name;
  catalogue = texts;
}

/** A text by its key, with `{name}` replaced by values. */
export function t(key, values = {}) {
  const text = catalogue[key];
  if (text === undefined) throw new Error(`no text for ${key} in ${language}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** Whether there is such a text. */
export function hasText(key) {
  return catalogue[key] !== undefined;
}

const formats = new Map();

/** A number with at most so many digits after the point; a dash where there is none. */
export function num(value, digits = 0) {
  if (value === null || value === undefined || Number.isNaN(Number(value)) || value === "") return "–";
  if (!Number.isFinite(Number(value))) return Number(value) > 0 ? "∞" : "−∞";
  const key = `${language} ${digits}`;
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(language, { maximumFractionDigits: digits }));
  return formats.get(key).format(value);
}

/** A part of a whole as a percentage. */
export function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${num(100 * value, digits)} %`;
}

/** Bytes in the unit that fits. */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [size, unit] = [value ?? 0, 0];
  for (; size >= 1000 && unit < units.length - 1; unit += 1) size /= 1000;
  return `${num(size, unit ? 1 : 0)} ${units[unit]}`;
}

/** Fills in the texts of a document: elements that name a key in data-text, data-label or data-title. */
export function fillIn(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
  for (const element of root.querySelectorAll("[data-title]")) element.title = t(element.dataset.title);
}
