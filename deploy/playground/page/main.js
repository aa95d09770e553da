// The playground: the fields and the address describe a training; the server sends its snapshots.

import { byId } from "./dom.js";
import { MARK_MS, drawBoundary, drawHistogram, drawLoss, drawNetwork, drawSlide, drawTimeline } from "./draw.js";
import { LANGUAGES, fillIn, num, percent, sentenceText, setTexts, t } from "./texts.js";

const FIELDS = ["data", "noise", "hidden", "workers", "mode", "compensation", "straggler", "learning_rate", "momentum", "batch", "seed"];
const MOST_HISTORY = 2000;
const MOST_MARKS = 12; // of one snapshot; at high speed one mark stands for several pushes
const FRAME_MS = 100;
const MOST_INTERVALS = 4000;
const catalogues = {};
let presets = {};
let setup = {};
let source = null;
let fixed = null; // points and sizes
let state = null;
let history_ = [];
let intervals = [];
let playing = false;
let marks = [];
let dirty = false;

async function useLanguage(language) {
  catalogues[language] ??= await (await fetch(`texts/${language}.json`)).json();
  setTexts(language, catalogues[language]);
  document.documentElement.lang = language;
  byId("language").value = language;
  fillIn(document);
  document.title = t("title");
  const chosen = byId("preset").value;
  byId("preset").replaceChildren(new Option(t("preset_own"), ""), ...Object.keys(presets).map((name) => new Option(t(`preset_${name}`), name)));
  byId("preset").value = chosen;
  byId("loss-key").textContent = t("loss_key", { train: "–", test: "–", accuracy: "–" });
  showPlaying();
  showStory();
  dirty = true;
}

/** Return a setup as text values, as in the fields and in the address. */
const texts = (values) => Object.fromEntries(FIELDS.map((name) => [name, Array.isArray(values[name]) ? values[name].join(",") : String(values[name])]));

/** Return the name of the preset that equals the setup, or an empty text. */
function presetOf() {
  return Object.keys(presets).find((name) => FIELDS.every((field) => texts(presets[name])[field] === String(setup[field]))) ?? "";
}

function showStory() {
  const name = presetOf();
  byId("preset").value = name;
  byId("story").textContent = name ? t(`story_${name}`) : "";
  byId("staleness-key").textContent = t(setup.mode === "async" ? "staleness_async" : "staleness_key");
}

function showPlaying() {
  byId("play").textContent = t(playing ? "pause" : "play");
  byId("play").setAttribute("aria-pressed", String(playing));
}

function remember() {
  const given = new URLSearchParams({ ...setup, speed: byId("speed").value, lang: document.documentElement.lang });
  history.replaceState(null, "", `#${given}`);
}

/** Ask for the training from a push on, and draw its snapshots until it is paused. */
function connect(from) {
  source?.close();
  const query = new URLSearchParams({ ...setup, speed: byId("speed").value, from });
  if (!playing) query.set("still", "1");
  const mine = new EventSource(`train?${query}`);
  source = mine;
  const take = (content) => {
    state = content;
    const shown = content.events.slice(-MOST_MARKS);
    const now = performance.now();
    marks.push(...shown.map(([, worker, staleness, , applied], at) => ({ worker, staleness, applied, born: now + (at * FRAME_MS) / shown.length })));
    history_.push([content.pushes, content.train, content.test]);
    if (history_.length > MOST_HISTORY) history_ = history_.filter((_, at) => at % 2 === 0);
    intervals = [...intervals, ...content.intervals].slice(-MOST_INTERVALS);
    dirty = true;
  };
  mine.addEventListener("first", (event) => {
    fixed = JSON.parse(event.data);
    if (!from) [history_, intervals] = [[], []];
    if (!history_.length) history_ = fixed.losses;
    byId("message").textContent = "";
    take(fixed);
  });
  mine.addEventListener("state", (event) => take(JSON.parse(event.data)));
  mine.addEventListener("over", (event) => {
    mine.close();
    if (JSON.parse(event.data).diverged) byId("message").textContent = t("diverged");
    if (playing) setPlaying(false, false);
  });
  mine.addEventListener("error", async () => {
    mine.close();
    const answer = await fetch(`train?${query}&still=1`).catch(() => null);
    const refused = answer && !answer.ok ? (await answer.json().catch(() => ({}))).refused : null;
    byId("message").textContent = refused ? t("refused", { reason: sentenceText(refused) }) : t("gone");
    setPlaying(false, false);
  });
}

function setPlaying(value, reconnect = true) {
  playing = value;
  showPlaying();
  if (reconnect) connect(state?.pushes ?? 0);
}

function restart() {
  state = null;
  showStory();
  remember();
  connect(0);
}

function readFields() {
  setup = Object.fromEntries(FIELDS.map((name) => [name, byId("setup").elements[name].value.trim()]));
}

function fillFields() {
  for (const name of FIELDS) byId("setup").elements[name].value = setup[name];
}

function draw(now) {
  requestAnimationFrame(draw);
  if (!state) return;
  marks = marks.filter((mark) => now < mark.born + MARK_MS);
  drawSlide(state, setup, marks, now);
  if (!dirty) return;
  dirty = false;
  drawBoundary(fixed.points, fixed.extent, state.grid);
  drawNetwork(fixed.sizes, state.weights);
  drawLoss(history_);
  drawHistogram(state, setup.mode);
  drawTimeline(intervals, state.workers.length, state.time);
  byId("clock").textContent = t("clock", { pushes: num(state.pushes), time: num(state.time, 1) });
  byId("loss-key").textContent = t("loss_key", { train: num(state.train, 3), test: num(state.test, 3), accuracy: percent(state.accuracy) });
  byId("timeline-key").textContent = t("timeline_key", { wait: percent(state.wait, 0), spread: num(state.spread) });
  for (const [name, value] of Object.entries({ pushes: state.pushes, loss: state.train, version: state.version })) document.body.dataset[name] = value;
}

async function main() {
  presets = await (await fetch("presets")).json();
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  setup = texts(presets[given.preset] ?? presets.compensated);
  for (const name of FIELDS) if (given[name] !== undefined) setup[name] = given[name];
  if ([...byId("speed").options].some((option) => option.value === given.speed)) byId("speed").value = given.speed;
  else byId("speed").value = "40";
  const preferred = navigator.languages.map((tag) => tag.slice(0, 2));
  await useLanguage(LANGUAGES.includes(given.lang) ? given.lang : preferred.find((tag) => LANGUAGES.includes(tag)) ?? "en");
  fillFields();
  showStory();
  byId("language").addEventListener("change", async (event) => { await useLanguage(event.target.value); remember(); });
  byId("setup").addEventListener("change", () => { readFields(); restart(); });
  byId("setup").addEventListener("submit", (event) => event.preventDefault());
  byId("preset").addEventListener("change", (event) => {
    if (!event.target.value) return;
    setup = texts(presets[event.target.value]);
    fillFields();
    playing = true;
    showPlaying();
    restart();
  });
  byId("speed").addEventListener("change", () => { remember(); connect(state?.pushes ?? 0); });
  byId("play").addEventListener("click", () => setPlaying(!playing));
  byId("restart").addEventListener("click", restart);
  addEventListener("resize", () => { dirty = true; });
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("select, input") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.tagName !== "BUTTON") { event.preventDefault(); setPlaying(!playing); }
    if (event.key === "r") restart();
  });
  playing = given.play !== "0";
  showPlaying();
  connect(Number(given.from) || 0);
  requestAnimationFrame(draw);
}

main();
