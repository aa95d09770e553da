// The slide: server shards, workers and their data as SVG; pushes and pulls on a canvas above it.

import { css, staleColor, textOn } from "./colors.js";
import { setText } from "./dom.js";
import { layout, placeOf } from "./layout.js";
import { num, t } from "./texts.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const RADIUS = 9;
const SPRITE = 24; // width and height of the picture of a mark
const MOST_SHOWN = 99; // staleness that is shown as a number
const MOST_WAYS = 16;
const SYMBOLS = {
  absent: "·", joining: "+", computing: "▶", step: "▶", waiting: "❚❚", slow: "◔", resting: "○", left: "✕", dead: "✖",
};
/** The update rules in short; docs/modes.md has them in full. */
const RULES = {
  sgd: "p ← p − η·g", momentum: "v ← μv − η·g,  p ← p + v", nesterov: "v ← μv − η·g,  p ← p + μv − η·g",
  adagrad: "a ← a + g²,  p ← p − η·g/√a", rmsprop: "a ← ρa + (1−ρ)g²,  p ← p − η·g/√a",
  adam: "p ← p − η·m̂/√v̂", adamw: "p ← p − η(m̂/√v̂ + λp)",
};

function element(name, attributes = {}, parent = null) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

/** Set the width of a rectangle if it differs by half a pixel, since every change is painted. */
function setWidth(node, width) {
  if (Math.abs((node.shown ?? -1) - width) < 0.5) return;
  node.shown = width;
  node.setAttribute("width", Math.max(0, width));
}

export class Slide {
  /** Build a slide in an element that contains an `<svg>` and a `<canvas>`. */
  constructor(root) {
    this.root = root;
    this.svg = root.querySelector("svg");
    this.canvas = root.querySelector("canvas");
    this.built = "";
    this.width = Math.floor(root.clientWidth);
    this.sprites = new Sprites();
  }

  /** Call a function whenever the width changes. */
  observe(changed) {
    new ResizeObserver(([{ contentRect }]) => {
      this.width = Math.floor(contentRect.width);
      changed();
    }).observe(this.root);
  }

  /** Create the boxes again if the width, the counts, the update rule or the language have changed. */
  build(shards, workers, rule) {
    const width = Math.max(300, this.width);
    const key = [width, shards, workers, rule, t("worker"), devicePixelRatio].join(" ");
    if (key === this.built) return;
    this.built = key;
    this.boxes = layout(width, shards, workers);
    const { height } = this.boxes;
    this.uncovered = withoutBoxes(width, height, this.boxes.covers);
    this.svg.replaceChildren();
    for (const node of [this.svg, this.canvas]) {
      node.style.width = `${width}px`;
      node.style.height = `${height}px`;
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.canvas.width = Math.round(width * devicePixelRatio);
    this.canvas.height = Math.round(height * devicePixelRatio);
    this.root.style.height = `${height}px`;
    this.buildServer(rule);
    this.buildWays();
    this.shards = this.boxes.shards.map((box, number) => this.buildShard(box, number));
    this.workers = this.boxes.workers.map((box, index) => this.buildWorker(box, this.boxes.data[index]));
    if (workers > this.boxes.workers.length) {
      const more = element("text", { x: width / 2, y: height - 2, "text-anchor": "middle", class: "small" }, this.svg);
      more.textContent = t("more_workers", { count: workers - this.boxes.workers.length });
    }
  }

  buildServer(rule) {
    const { server, width } = this.boxes;
    element("rect", { x: server.x, y: server.y, width: server.width, height: server.height, rx: 10, class: "server" }, this.svg);
    const title = element("text", { x: server.x + 14, y: server.y + 25, class: "title" }, this.svg);
    title.textContent = t("parameter_server");
    const formula = element("text", { x: width - server.x - 14, y: server.y + 26, "text-anchor": "end", class: "formula" }, this.svg);
    formula.textContent = width > 560 && RULES[rule] ? RULES[rule] : "p′ = p + Δp";
  }

  /** Draw the lines that pushes and pulls follow, unless there are so many that they would hide the rest. */
  buildWays() {
    if (this.boxes.shards.length * this.boxes.workers.length > MOST_WAYS) return;
    this.boxes.workers.forEach((_, worker) => this.boxes.shards.forEach((__, shard) => {
      for (const kind of ["push", "pull"]) {
        const [from, to] = [0, 1].map((progress) => placeOf({ kind, worker, shard, progress }, this.boxes));
        element("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y, class: `way ${kind}` }, this.svg);
      }
    }));
  }

  buildShard(box, number) {
    element("rect", { x: box.x, y: box.y, width: box.width, height: box.height, rx: 6, class: "shard" }, this.svg);
    const middle = { x: box.x + box.width / 2, "text-anchor": "middle" };
    const name = element("text", { ...middle, y: box.y + 17, class: "small" }, this.svg);
    name.textContent = t("shard_number", { number });
    return {
      version: element("text", { ...middle, y: box.y + 38, class: "version", "data-version": number }, this.svg),
      rate: element("text", { ...middle, y: box.y + 54, class: "small" }, this.svg),
    };
  }

  buildWorker(box, data) {
    const group = element("g", { class: "worker" }, this.svg);
    const frame = element("rect", { x: box.x, y: box.y, width: box.width, height: box.height, rx: 8 }, group);
    const middle = { x: box.x + box.width / 2, "text-anchor": "middle" };
    const small = this.boxes.compact;
    const made = {
      group, frame,
      name: element("text", { ...middle, y: box.y + (small ? 15 : 18), class: small ? "small strong" : "strong" }, group),
      state: element("text", { ...middle, y: box.y + (small ? 30 : 36), class: "small" }, group),
      figures: small ? null : element("text", { ...middle, y: box.y + 52, class: "small" }, group),
      step: element("rect", { x: box.x + 8, y: box.y + box.height - 7, width: 0, height: 3, class: "step" }, group),
      box, data,
    };
    if (data) Object.assign(made, this.buildData(data));
    else if (small) made.used = element("rect", { x: box.x + 8, y: box.y + box.height - 13, width: 0, height: 3, class: "used" }, group);
    return made;
  }

  /** Draw the data of a worker as a cylinder, which is filled from the left as samples are used. */
  buildData(box) {
    const arc = 6;
    const side = `M${box.x},${box.y + arc} v${box.height - 2 * arc} a${box.width / 2},${arc} 0 0 0 ${box.width},0 v${2 * arc - box.height}`;
    element("path", { d: `M${box.x + box.width / 2},${box.y - 2} v-8`, class: "lease" }, this.svg);
    element("path", { d: side, class: "data" }, this.svg);
    const used = element("rect", { x: box.x + 1, y: box.y + arc, width: 0, height: box.height - 2 * arc + 3, class: "used" }, this.svg);
    element("ellipse", { cx: box.x + box.width / 2, cy: box.y + arc, rx: box.width / 2, ry: arc, class: "data" }, this.svg);
    const lease = element("text", {
      x: box.x + box.width / 2, y: box.y + box.height / 2 + 9, "text-anchor": "middle", class: "small",
    }, this.svg);
    return { used, lease };
  }

  /**
   * Show the shards and the workers at the playhead.
   *
   * @param {object} picture `{shards: [{version, rate}], workers: [{number, activity, updates, dropped, staleness, lease, step}]}`
   */
  update(picture) {
    picture.shards.forEach((shard, number) => {
      if (!this.shards[number]) return;
      setText(this.shards[number].version, t("version_number", { version: num(shard.version) }));
      setText(this.shards[number].rate, shard.rate === null ? picture.rule : `${picture.rule} · η = ${num(shard.rate, 6)}`);
    });
    picture.workers.forEach((worker, index) => {
      if (this.workers[index]) this.updateWorker(this.workers[index], worker);
    });
  }

  updateWorker(made, worker) {
    const { box } = made;
    const kind = `worker ${worker.activity}`;
    if (made.group.getAttribute("class") !== kind) made.group.setAttribute("class", kind);
    const small = this.boxes.compact;
    setText(made.name, small ? `${worker.number}` : t("worker_number", { number: worker.number }));
    setText(made.state, small ? SYMBOLS[worker.activity] : `${SYMBOLS[worker.activity]} ${t(`state_${worker.activity}`)}`);
    if (made.figures) {
      const dropped = worker.dropped ? ` · ✕ ${num(worker.dropped)}` : "";
      setText(made.figures, `${t("updates_count", { count: num(worker.updates) })}${dropped}`);
    }
    setWidth(made.step, (box.width - 16) * Math.min(1, worker.step ?? 0));
    const lease = worker.lease;
    const share = lease ? Math.min(1, lease.used / Math.max(1, lease.stop - lease.start)) : 0;
    if (made.used) setWidth(made.used, (made.data ? made.data.width - 2 : box.width - 16) * share);
    if (made.lease) setText(made.lease, lease ? leaseText(lease, made.data.width) : t("no_lease"));
  }

  /** Clear the canvas and draw marks on it. */
  drawMarks(marks, staleEnd, theme) {
    const context = this.canvas.getContext("2d");
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.boxes.width, this.boxes.height);
    this.sprites.use(staleEnd, theme);
    context.save();
    if (this.uncovered) context.clip(this.uncovered, "evenodd");
    for (const mark of marks) {
      const place = mark.kind === "drop" ? null : placeOf(mark, this.boxes);
      if (place) context.drawImage(this.sprites.of(mark), place.x - SPRITE / 2, place.y - SPRITE / 2, SPRITE, SPRITE);
    }
    context.restore();
    for (const mark of marks) {
      const place = mark.kind === "drop" ? placeOf(mark, this.boxes) : null;
      if (place) drawDrop(context, mark, place, theme);
    }
  }
}

/** Return the area of the slide that no box covers; null if there is no such box. */
function withoutBoxes(width, height, boxes) {
  if (!boxes.length) return null;
  const path = new Path2D();
  path.rect(0, 0, width, height);
  for (const box of boxes) path.rect(box.x, box.y, box.width, box.height);
  return path;
}

function leaseText(lease, width) {
  const range = `${num(lease.start)}–${num(lease.stop)}`;
  return width > 150 ? t("lease_range", { number: lease.number, range }) : range;
}

function drawDrop(context, mark, { x, y }, theme) {
  context.beginPath();
  context.globalAlpha = 1 - mark.progress * 0.6;
  context.lineWidth = 3;
  context.strokeStyle = theme.drop;
  for (const side of [-1, 1]) {
    context.moveTo(x - 6, y - 6 * side);
    context.lineTo(x + 6, y + 6 * side);
  }
  context.stroke();
  context.globalAlpha = 1;
}

/** The pictures of marks, each of which is drawn once: a disc for a push of each staleness, a triangle for a pull. */
class Sprites {
  constructor() {
    this.key = "";
    this.drawn = new Map();
  }

  /** Set the colours, and discard the pictures that have others. */
  use(staleEnd, theme) {
    const key = [staleEnd, theme.name, devicePixelRatio].join();
    if (key !== this.key) this.drawn.clear();
    Object.assign(this, { key, staleEnd, theme });
  }

  of(mark) {
    const which = mark.kind === "pull" ? -1 : Math.min(mark.staleness, MOST_SHOWN + 1);
    if (!this.drawn.has(which)) this.drawn.set(which, this.draw(which, mark.staleness));
    return this.drawn.get(which);
  }

  draw(which, staleness) {
    const size = Math.ceil(SPRITE * devicePixelRatio);
    const sheet = new OffscreenCanvas(size, size);
    const context = sheet.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    context.translate(SPRITE / 2, SPRITE / 2);
    context.lineWidth = 1.5;
    context.strokeStyle = this.theme.text;
    context.beginPath();
    if (which < 0) {
      context.moveTo(-6, -5);
      context.lineTo(6, -5);
      context.lineTo(0, 6);
      context.closePath();
    } else context.arc(0, 0, RADIUS, 0, 2 * Math.PI);
    const color = staleColor(staleness, this.staleEnd);
    context.fillStyle = which < 0 ? this.theme.pull : css(color);
    context.fill();
    context.stroke();
    if (which < 0) return sheet;
    context.font = `bold ${which > MOST_SHOWN ? 8 : 10}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = textOn(color);
    context.fillText(which > MOST_SHOWN ? `${MOST_SHOWN}+` : String(which), 0, 0.5);
    return sheet;
  }
}
