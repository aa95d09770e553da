// The application: it connects the playhead, the controls and the drawing functions.

import { Charts } from "./charts.js";
import { byId, make } from "./dom.js";
import { marksAt } from "./marks.js";
import { Panels } from "./panels.js";
import { Slide } from "./slide.js";
import { State } from "./state.js";
import { fillIn, num, t } from "./texts.js";
import { SPEEDS, readView, speedText, writeView } from "./view.js";

const CHARTS_EVERY_MS = 1000; // of a running job
const LAG_S = 1; // behind a running job, so that the records of all shards have arrived
const TEXTS_EVERY_MS = 100; // while playing: text that changes faster cannot be read
const KEYS = {
  " ": "key_play", "← →": "key_step", "Shift ← →": "key_step_many", "Home, End": "key_ends", "+ −": "key_speed", "v": "key_version",
};

export class App {
  /** Build the application for a run; `useLanguage(name)` loads the texts of another language. */
  constructor(run, view, useLanguage) {
    Object.assign(this, { run, view, useLanguage, playing: false, dirty: true, lastPhase: "" });
    Object.assign(this, { drawnTexts: 0, chartsSet: 0, receivedAt: performance.now() }); // in milliseconds, as performance.now()
    this.state = new State(run);
    this.slide = new Slide(byId("slide"));
    this.charts = new Charts(run, (x) => this.seek(view.x === "time" ? run.positionAtTime(x) : Math.round(x)));
    this.panels = new Panels(run, (position) => this.seek(position));
    this.position = this.startOf(view);
    this.time = run.timeAt(this.position);
    this.following = Boolean(run.live); // whether the playhead stays at the newest moment of a running job
  }

  /** Show a newer state of a running job, from which the oldest `shifted` records have been removed. */
  setRun(run, shifted) {
    Object.assign(this, { run, state: new State(run), dirty: true, receivedAt: performance.now() });
    this.position = Math.max(0, Math.min(run.count, this.position - shifted));
    if (!this.playing) this.time = run.timeAt(this.position);
    byId("slider").max = run.count;
    byId("version").max = run.lastVersion;
    this.panels.setRun(run);
    this.charts.run = run;
    const now = performance.now();
    if (now - this.chartsSet < CHARTS_EVERY_MS && run.live.phase === this.lastPhase) return;
    [this.chartsSet, this.lastPhase] = [now, run.live.phase];
    this.charts.translate();
    this.translateHead();
  }

  /** Return the position at which a view starts: its record, its version, or else the end of the run. */
  startOf(view) {
    if (view.at !== null) return Math.min(view.at, this.run.count);
    if (view.v !== null) return this.run.positionAtVersion(view.v);
    return this.run.count;
  }

  start() {
    byId("main").hidden = false;
    byId("slider").max = this.run.count;
    byId("version").max = this.run.lastVersion;
    this.bind();
    this.translate();
    this.applyTheme();
    if (this.view.play || this.run.live) this.setPlaying(true);
    const frame = (now) => {
      this.frame(now);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    new ResizeObserver(() => { this.dirty = true; }).observe(byId("slide"));
  }

  bind() {
    const click = (id, action) => byId(id).addEventListener("click", action);
    click("start", () => this.seek(0));
    click("back", () => this.step(-1));
    click("play", () => this.setPlaying(!this.playing));
    click("forward", () => this.step(1));
    click("end", () => this.seek(this.run.count));
    byId("slider").addEventListener("input", (event) => this.seek(Number(event.target.value)));
    byId("version").addEventListener("change", (event) => this.seek(this.run.positionAtVersion(Number(event.target.value))));
    for (const speed of SPEEDS) byId("speed").append(new Option(speedText(speed), String(speed)));
    this.choice("speed", "speed", Number);
    this.choice("axis", "x", String);
    this.choice("span", "span", String);
    this.choice("theme", "theme", String, () => this.applyTheme());
    byId("language").value = document.documentElement.lang;
    byId("language").addEventListener("change", async (event) => {
      this.view.lang = event.target.value;
      await this.useLanguage(this.view.lang);
      this.translate();
      this.remember();
    });
    document.addEventListener("keydown", (event) => this.onKey(event));
    addEventListener("hashchange", () => this.onAddress());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.applyTheme());
  }

  /** Bind a `<select>` element to a setting of the view. */
  choice(id, name, read, then = () => {}) {
    byId(id).value = String(this.view[name]);
    byId(id).addEventListener("change", (event) => {
      this.view[name] = read(event.target.value);
      then();
      this.dirty = true;
      this.remember();
    });
  }

  onKey(event) {
    const typing = event.target.matches("select, input[type=number], textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const onSlider = event.target.id === "slider";
    const many = event.shiftKey ? 100 : 1;
    const actions = {
      " ": () => event.target.tagName !== "BUTTON" && event.target.tagName !== "SUMMARY" && this.setPlaying(!this.playing),
      ArrowLeft: () => this.step(-many), ArrowRight: () => this.step(many),
      Home: () => this.seek(0), End: () => this.seek(this.run.count),
      "+": () => this.changeSpeed(1), "-": () => this.changeSpeed(-1), v: () => byId("version").focus(),
    };
    const action = actions[event.key];
    if (!action || (onSlider && event.key.startsWith("Page"))) return;
    if (action() !== false) event.preventDefault();
  }

  changeSpeed(by) {
    const at = Math.max(0, Math.min(SPEEDS.length - 1, SPEEDS.indexOf(this.view.speed) + by));
    this.view.speed = SPEEDS[at];
    byId("speed").value = String(this.view.speed);
    this.remember();
  }

  /** Apply an address that the user has edited, or has returned to in the history. */
  onAddress() {
    const given = readView(location.hash);
    if (writeView(given) === writeView({ ...this.view, at: this.position })) return;
    Object.assign(this.view, given, { lang: given.lang ?? this.view.lang });
    for (const [id, name] of [["speed", "speed"], ["axis", "x"], ["span", "span"], ["theme", "theme"]]) byId(id).value = String(this.view[name]);
    this.applyTheme();
    this.seek(this.startOf(given));
  }

  remember() {
    const view = { ...this.view, at: this.position === this.run.count ? null : this.position, play: false };
    history.replaceState(null, "", `#${writeView(view)}`);
  }

  applyTheme() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const name = this.view.theme === "auto" ? (dark ? "dark" : "light") : this.view.theme;
    document.documentElement.dataset.theme = name;
    const style = getComputedStyle(document.documentElement);
    this.theme = { name };
    for (const color of ["surface", "text", "muted", "line", "accent", "predicted", "drop", "pull", "train", "validation", "raw", "test"]) {
      this.theme[color] = style.getPropertyValue(`--${color}`).trim();
    }
    this.dirty = true;
  }

  /** Write all texts again, in the language that is set. */
  translate() {
    fillIn(document);
    this.translateHead();
    this.showKeys();
    this.showPlaying();
    this.charts.translate();
    this.panels.translate();
    this.slide.built = "";
    this.dirty = true;
  }

  /** Write the name and the settings of the job. */
  translateHead() {
    const { settings } = this.run;
    byId("run-name").textContent = this.run.header.run;
    document.title = t("title", { run: this.run.header.run });
    byId("job").textContent = t("job_line", {
      model: settings.model, dataset: settings.dataset, mode: this.run.modes.slice(-3).join(" → "), optimizer: settings.optimizer,
      batch: num(settings.batch_size), workers: num(this.run.workers.length), shards: num(this.run.shards.length),
    });
  }

  showKeys() {
    byId("keys").replaceChildren();
    for (const [key, text] of Object.entries(KEYS)) {
      byId("keys").append(make("dt", key === " " ? t("space_bar") : key), make("dd", t(text)));
    }
  }

  setPlaying(playing) {
    if (playing && this.position >= this.run.count) {
      if (this.run.live) this.following = true;
      else this.seek(0);
    }
    if (!playing) this.following = false;
    this.playing = playing;
    this.lastFrame = null;
    this.dirty = true;
    this.showPlaying();
    if (!playing) this.remember();
  }

  showPlaying() {
    byId("play").textContent = this.playing ? t("pause") : t("play");
    byId("play").setAttribute("aria-pressed", String(this.playing));
  }

  /** Move the playhead by a number of records, and pause. */
  step(by) {
    if (this.playing) this.setPlaying(false);
    if (this.run.live && this.position + by >= this.run.count) return;
    this.seek(this.position + by);
  }

  /** Move the playhead to a position and draw it. */
  seek(position) {
    this.following = Boolean(this.run.live) && position >= this.run.count;
    if (this.following && !this.playing) this.setPlaying(true);
    this.position = Math.max(0, Math.min(this.run.count, Math.round(position) || 0));
    this.time = this.run.timeAt(this.position);
    this.dirty = true;
    this.draw(true);
    clearTimeout(this.remembering);
    this.remembering = setTimeout(() => this.remember(), 200);
  }

  frame(now) {
    if (this.playing) {
      const passed = this.lastFrame === null ? 0 : Math.min(0.25, (now - this.lastFrame) / 1000);
      this.lastFrame = now;
      if (this.following) this.follow(passed);
      else this.time += passed * this.view.speed;
      const reached = this.run.positionAtTime(this.time);
      this.position = this.following ? reached : Math.max(this.position, reached);
      if (!this.following && this.position >= this.run.count && this.time >= this.run.duration) this.atEnd();
      this.draw(now - this.drawnTexts > TEXTS_EVERY_MS, now);
    } else if (this.dirty) this.draw(true);
  }

  /** Advance the playhead of a running job; its speed is adjusted so that it stays `LAG_S` behind the job's clock. */
  follow(passed) {
    const over = ["ended", "failed"].includes(this.run.live.phase);
    if (!this.run.count) return;
    const clock = this.run.live.elapsed_s + (performance.now() - this.receivedAt) / 1000;
    const drift = (over ? this.run.duration : Math.max(0, clock - LAG_S)) - this.time;
    if (Math.abs(drift) > 3) this.time += drift;
    else this.time += passed * Math.max(0, 1 + Math.max(-1, Math.min(1, drift)));
    if (over && this.time >= this.run.duration) [this.following, this.time] = [false, this.run.duration];
  }

  /** Stop a replay at its end, or follow a job that is still running. */
  atEnd() {
    if (this.run.live && !["ended", "failed"].includes(this.run.live.phase)) this.following = true;
    else this.setPlaying(false);
  }

  /** Draw the marks at the playhead and, if `all`, also the texts and the charts. */
  draw(all, now = performance.now()) {
    const { run, state, view } = this;
    this.state.seek(this.position);
    const rule = run.settings.optimizer ?? "";
    this.slide.build(run.shards.length, run.workers.length, rule);
    if (all) {
      this.drawnTexts = now;
      this.dirty = false;
      const activities = state.activities(this.time);
      this.slide.update(this.picture(activities, rule));
      this.panels.update(state, activities, this.time);
      this.charts.drawLines(this.position, this.time, view.x, this.theme);
      this.panels.drawHistograms(state, this.theme);
      this.panels.drawLegend(this.theme, run.staleEnd);
      byId("slider").value = this.position;
      if (document.activeElement !== byId("version")) byId("version").value = run.versionAt(this.position);
      byId("clock").textContent = t("clock", {
        time: num(this.time, 3), end: num(run.duration, 3), record: num(this.position), records: num(run.count),
      });
    }
    this.charts.drawTimeline(this.time, view.span, this.theme, all);
    this.slide.drawMarks(marksAt(run, this.time, this.following ? 1 : this.playing ? view.speed : Math.min(view.speed, 1 / 64)), run.staleEnd, this.theme);
  }

  /** Return what the slide shows at the playhead; see `Slide.update`. */
  picture(activities, rule) {
    const { run, state } = this;
    const rate = state.learningRate();
    return {
      rule,
      shards: run.shards.map((_, shard) => ({ version: state.versionOf(shard, this.time), rate })),
      workers: state.workers.map((worker, index) => {
        const next = run.rows[index][worker.pushes];
        const began = run.timeAt(worker.row + 1);
        const step = next === undefined ? 0 : (this.time - began) / Math.max(1e-9, run.times[next] - began);
        return { ...worker, activity: activities[index], lease: state.leaseOf(index), step };
      }),
    };
  }
}

