// The settings of the view, stored in the fragment of the address, so that a link restores them.

export const SPEEDS = [1 / 256, 1 / 64, 1 / 16, 1 / 4, 1, 4, 16, 64];
export const DEFAULTS = { at: null, v: null, speed: 1, x: "time", span: "near", lang: null, theme: "auto", play: false };

/** Return the settings in the fragment of an address; invalid ones have their default values. */
export function readView(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const view = { ...DEFAULTS };
  for (const name of ["at", "v"]) {
    const value = given.get(name);
    if (value !== null && /^\d{1,15}$/.test(value)) view[name] = Number(value);
  }
  const speed = Number(given.get("speed"));
  if (SPEEDS.includes(speed)) view.speed = speed;
  const choices = { x: ["time", "updates"], span: ["near", "all"], lang: ["en", "es"], theme: ["auto", "light", "dark"] };
  for (const [name, values] of Object.entries(choices)) if (values.includes(given.get(name))) view[name] = given.get(name);
  view.play = given.get("play") === "1";
  return view;
}

/** Return the fragment of an address for a view; settings with their default values are omitted. */
export function writeView(view) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(view)) {
    if (value === DEFAULTS[name] || value === null || name === "v") continue;
    given.set(name, value === true ? "1" : String(value));
  }
  return given.toString();
}

/** Format a speed for display: ×¼, ×1/16, ×4. */
export function speedText(speed) {
  if (speed >= 1) return `×${speed}`;
  return speed === 0.25 ? "×¼" : `×1/${Math.round(1 / speed)}`;
}
