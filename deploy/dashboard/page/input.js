// The fields, buttons and keys of the application.

import { byId, make } from "./dom.js";
import { t } from "./texts.js";
import { SPEEDS, speedText } from "./view.js";

const KEYS = {
  " ": "key_play", "← →": "key_step", "Shift ← →": "key_step_many", "Home, End": "key_ends", "+ −": "key_speed", "v": "key_version",
};

export class Input {
  /** Build the input of an application; `bind` connects it to the elements of the page. */
  constructor(app) {
    this.app = app;
  }

  bind() {
    const click = (id, action) => byId(id).addEventListener("click", action);
    click("start", () => this.app.seek(0));
    click("back", () => this.app.step(-1));
    click("play", () => this.app.setPlaying(!this.app.playing));
    click("forward", () => this.app.step(1));
    click("end", () => this.app.seek(this.app.run.count));
    byId("slider").addEventListener("input", (event) => this.app.seek(Number(event.target.value)));
    byId("version").addEventListener("change", (event) => this.app.seek(this.app.run.positionAtVersion(Number(event.target.value))));
    for (const speed of SPEEDS) byId("speed").append(new Option(speedText(speed), String(speed)));
    this.choice("speed", "speed", Number);
    this.choice("axis", "x", String);
    this.choice("span", "span", String);
    this.choice("theme", "theme", String, () => this.app.applyTheme());
    byId("language").value = document.documentElement.lang;
    byId("language").addEventListener("change", async (event) => {
      this.app.view.lang = event.target.value;
      await this.app.useLanguage(this.app.view.lang);
      this.app.translate();
      this.app.remember();
    });
    document.addEventListener("keydown", (event) => this.onKey(event));
    addEventListener("hashchange", () => this.app.onAddress());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.app.applyTheme());
  }

  /** Bind a `<select>` element to a setting of the view. */
  choice(id, name, read, then = () => {}) {
    byId(id).value = String(this.app.view[name]);
    byId(id).addEventListener("change", (event) => {
      this.app.view[name] = read(event.target.value);
      then();
      this.app.dirty = true;
      this.app.remember();
    });
  }

  onKey(event) {
    const typing = event.target.matches("select, input:not([type=range]), textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const onSlider = event.target.id === "slider";
    const many = event.shiftKey ? 100 : 1;
    const actions = {
      " ": () => event.target.tagName !== "BUTTON" && event.target.tagName !== "SUMMARY" && this.app.setPlaying(!this.app.playing),
      ArrowLeft: () => this.app.step(-many), ArrowRight: () => this.app.step(many),
      Home: () => this.app.seek(0), End: () => this.app.seek(this.app.run.count),
      "+": () => this.changeSpeed(1), "-": () => this.changeSpeed(-1), v: () => byId("version").focus(),
    };
    const action = actions[event.key];
    if (!action || (onSlider && event.key.startsWith("Page"))) return;
    if (action() !== false) event.preventDefault();
  }

  changeSpeed(by) {
    const at = Math.max(0, Math.min(SPEEDS.length - 1, SPEEDS.indexOf(this.app.view.speed) + by));
    this.app.view.speed = SPEEDS[at];
    byId("speed").value = String(this.app.view.speed);
    this.app.remember();
  }

  showKeys() {
    byId("keys").replaceChildren();
    for (const [key, text] of Object.entries(KEYS)) {
      byId("keys").append(make("dt", key === " " ? t("space_bar") : key), make("dd", t(text)));
    }
  }
}
