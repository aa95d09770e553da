// The application: it connects the playhead, the controls and the drawing functions.

import { onCanvasChange } from "./canvas.js";
import { Charts } from "./charts.js";
import { byId, setText } from "./dom.js";
import { Input } from "./input.js";
import { marksAt } from "./marks.js";
import { Panels } from "./panels.js";
import { Slide } from "./slide.js";
import { State } from "./state.js";
import { counted, fillIn, num, t } from "./texts.js";
import { readView, writeView } from "./view.js";

const CHARTS_EVERY_MS = 1000; // of a running job
const LAG_S = 1; // behind a running job, so that the records of all shards have arrived
const TEXTS_EVERY_MS = 100; // at least, while playing: text that changes faster cannot be read
const TEXTS_EVERY_MS_PER_WORKER = 4; // at least: every worker has texts, which are laid out and painted again
const IN_A_STEP = ["computing", "slow", "step", "waiting"]; // activities
const PARTS_MS = 4; // of a frame, for the parts of the page other than marks and timeline

export class App {
  /** Build the application for a run; `useLanguage(name)` loads the texts of another language. */
  constructor(run, view, useLanguage) {
    Object.assign(this, { run, view, useLanguage, playing: false, dirty: true, lastPhase: "" });
    Object.assign(this, { drawnTexts: 0, chartsSet: 0, receivedAt: performance.now(), due: [] }); // times as performance.now()
    this.state = new State(run);
    this.input = new Input(this);
    this.slide = new Slide(byId("slide"));
    this.charts = new Charts(run, (x) => this.seek(view.x === "time" ? this.run.positionAtTime(x) : Math.round(x)));
    this.panels = new Panels(run, (position) => this.seek(position));
    this.position = this.startOf(view);
    this.time = run.timeAt(this.position);
    this.following = Boolean(run.live); // whether the playhead stays at the newest moment of a running job
  }

  /** Show a newer state of a running job, from which the oldest `shifted` records have been removed. */
  setRun(run, shifted) {
    Object.assign(this, { run, state: new State(run), receivedAt: performance.now() });
    this.dirty ||= !this.playing; // while playing, everything is drawn soon
    this.position = Math.max(0, Math.min(run.count, this.position - shifted));
    if (!this.playing) this.time = run.timeAt(this.position);
    this.state.seek(this.position); // here, and not in the next frame
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
    this.input.bind();
    this.translate();
    this.applyTheme();
    if (this.view.play || this.run.live) this.setPlaying(true);
    const frame = (now) => {
      this.frame(now);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    onCanvasChange(() => { this.dirty = true; });
    this.slide.observe(() => { this.dirty = true; });
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
    this.input.showKeys();
    this.showPlaying();
    this.charts.translate();
    this.panels.translate();
    this.slide.built = "";
    this.dirty = true;
  }

  /** Write the name and the settings of the job. */
  translateHead() {
    const { settings } = this.run;
    setText(byId("run-name"), this.run.header.run);
    const title = t("title", { run: this.run.header.run });
    if (document.title !== title) document.title = title;
    setText(byId("job"), t("job_line", {
      model: settings.model, dataset: settings.dataset, mode: this.run.modes.slice(-3).join(" → "), optimizer: settings.optimizer,
      batch: num(settings.batch_size), workers: counted("worker", this.run.workers.length), shards: counted("shard", this.run.shards.length),
    }));
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
    this.draw();
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
      this.drawPlaying(now);
    } else if (this.dirty) this.draw(now);
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

  /** Draw everything at the playhead. */
  draw(now = performance.now()) {
    this.drawMoving(true);
    this.drawnTexts = now;
    this.dirty = false;
    this.due = [];
    for (const part of this.parts()) part();
  }

  /** Draw what moves in every frame, and some of the other parts of the page, for which a frame has little time. */
  drawPlaying(now) {
    const textsEvery = Math.max(TEXTS_EVERY_MS, TEXTS_EVERY_MS_PER_WORKER * this.run.workers.length);
    if (!this.due.length && (this.dirty || now - this.drawnTexts > textsEvery)) {
      this.drawnTexts = now;
      this.due = this.parts();
      this.dirty = false;
      this.drawMoving(true);
    } else this.drawMoving(false);
    const began = performance.now();
    while (this.due.length && performance.now() - began < PARTS_MS) this.due.shift()();
  }

  /** Draw the marks and the timeline at the playhead. */
  drawMoving(all) {
    const { run, view } = this;
    this.state.seek(this.position);
    this.slide.build(run.shards.length, run.workers.length, run.settings.optimizer ?? "");
    this.charts.drawTimeline(this.time, view.span, this.theme, all);
    const speed = this.following ? 1 : this.playing ? view.speed : Math.min(view.speed, 1 / 64);
    this.slide.drawMarks(marksAt(run, this.time, speed), run.staleEnd, this.theme);
  }

  /** Return functions that draw the other parts of the page at the playhead; each of them takes a few milliseconds. */
  parts() {
    const activities = () => this.state.activities(this.time);
    return [
      () => {
        this.slide.update(this.picture(activities(), this.run.settings.optimizer ?? ""));
        this.showPlayhead();
      },
      () => this.panels.update(this.state, activities(), this.time),
      ...Object.keys(this.charts.lines).map((id) => () => this.charts.drawLine(id, this.position, this.time, this.view.x, this.theme)),
      () => this.panels.drawHistograms(this.state, this.theme),
      () => this.panels.drawLegend(this.theme, this.run.staleEnd),
    ];
  }

  showPlayhead() {
    const { run } = this;
    byId("slider").value = this.position;
    if (document.activeElement !== byId("version")) byId("version").value = run.versionAt(this.position);
    const { first } = run.header.window; // the number of records before those of this page
    setText(byId("clock"), t("clock", {
      time: num(this.time, 3), end: num(Math.max(this.time, run.duration), 3), // a job that is paused makes no pushes
      record: num(first + this.position), records: num(first + run.count),
    }));
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
        const step = next === undefined || !IN_A_STEP.includes(activities[index]) ? 0 : (this.time - began) / Math.max(1e-9, run.times[next] - began);
        return { ...worker, activity: activities[index], lease: state.leaseOf(index), step };
      }),
    };
  }
}

