// The texts of the page, from one catalogue per language, and numbers in the format of that language.

export const LANGUAGES = ["en", "es"];
let catalogue = {};
let language = "en";

/** Set the language, and the catalogue that `t` reads. */
export function setTexts(name, texts) {
  language = name;
  catalogue = texts;
}

/** Return the text of a key, in which each `{name}` is replaced by its value. */
export function t(key, values = {}) {
  const text = catalogue[key];
  if (text === undefined) throw new Error(`no text for ${key} in ${language}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** Return whether the catalogue has a text for a key. */
export function hasText(key) {
  return catalogue[key] !== undefined;
}

/**
 * Return the text of a message of the server in the language that is set.
 *
 * It is `{code, values, text}`, whose values may be such messages; a text without a code, as that of an exception, is
 * shown as it is.
 */
export function sentenceText(message) {
  if (typeof message === "number") return num(message);
  if (typeof message !== "object" || message === null) return String(message ?? "");
  const key = `sentence_${message.code}`;
  if (!hasText(key)) return message.text; // of a server of another version
  return t(key, Object.fromEntries(Object.entries(message.values).map(([name, value]) => [name, sentenceText(value)])));
}

const formats = new Map();

/** Format a number with at most `digits` decimal places; a missing number is a dash. */
export function num(value, digits = 0) {
  if (value === null || value === undefined || Number.isNaN(Number(value)) || value === "") return "–";
  if (!Number.isFinite(Number(value))) return Number(value) > 0 ? "∞" : "−∞";
  const key = `${language} ${digits}`;
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(language, { maximumFractionDigits: digits }));
  return formats.get(key).format(value);
}

/** Return a number with its noun, which has a text for one and a text for several. */
export function counted(noun, count) {
  return t(count === 1 ? `one_${noun}` : `several_${noun}s`, { count: num(count) });
}

/** Format a fraction as a percentage; a missing number is a dash. */
export function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${num(100 * value, digits)} %`;
}

/** Format a number of bytes with the largest suitable unit. */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [size, unit] = [value ?? 0, 0];
  for (; size >= 1000 && unit < units.length - 1; unit += 1) size /= 1000;
  return `${num(size, unit ? 1 : 0)} ${units[unit]}`;
}

/** Set the texts of all elements that name a key in `data-text`, `data-label` or `data-title`. */
export function fillIn(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
  for (const element of root.querySelectorAll("[data-title]")) element.title = t(element.dataset.title);
}
