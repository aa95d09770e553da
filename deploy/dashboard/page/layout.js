// The positions of the boxes of the slide, in CSS pixels: server shards at the top, workers below, their data beneath.

export const MOST_WORKERS = 64; // that are drawn; the slide states how many others there are
const EDGE = 10;
const GAP = 10;
const SHARD = { least: 150, height: 62 };
const TILE = { least: 104, most: 200, height: 66, small: 52, smallWidth: 58 };
const DATA_HEIGHT = 62;
const FLIGHT = { narrow: 110, wide: 190, roomy: 290 }; // the height between the server and the workers

/** Return the boxes `{x, y, width, height}` of the server, the shards, the workers and their data for a width. */
export function layout(width, shards, workers) {
  const inner = width - 2 * EDGE;
  const server = { x: EDGE, y: EDGE, width: inner, height: 0 };
  const shardBoxes = grid(shards, inner - 2 * GAP, SHARD.least, Infinity, SHARD.height, EDGE + GAP, EDGE + 40);
  server.height = bottom(shardBoxes, EDGE + 40) - EDGE + GAP;
  const shown = Math.min(workers, MOST_WORKERS);
  const roomy = shown * (TILE.least + GAP) <= inner + GAP;
  const top = server.y + server.height + (width < 560 ? FLIGHT.narrow : roomy ? FLIGHT.roomy : FLIGHT.wide);
  const compact = !roomy && shown > 8;
  const workerBoxes = grid(
    shown, inner, compact ? TILE.smallWidth : TILE.least, compact ? 96 : TILE.most, compact ? TILE.small : TILE.height, EDGE, top,
    !roomy && !compact ? DATA_HEIGHT : 0);
  const dataBoxes = compact ? [] : workerBoxes.map((box) => ({
    x: box.x, y: box.y + box.height + 12, width: box.width, height: DATA_HEIGHT - 14,
  }));
  const height = Math.max(bottom(workerBoxes, top), bottom(dataBoxes, 0)) + EDGE;
  // The way of a mark crosses the rows between its worker and its shard, behind whose boxes it passes.
  const crossed = compact ? [] : workerBoxes.filter((box) => box.y < workerBoxes[shown - 1].y);
  const below = shardBoxes.filter((box) => box.y > shardBoxes[0].y);
  const covers = [...below, ...crossed, ...crossed.map((_, index) => dataBoxes[index])];
  return { width, height, server, shards: shardBoxes, workers: workerBoxes, data: dataBoxes, compact, covers };
}

function bottom(boxes, otherwise) {
  return boxes.reduce((most, box) => Math.max(most, box.y + box.height), otherwise);
}

/** Return `count` boxes of equal size in centred rows. */
function grid(count, width, least, most, height, x, y, below = 0) {
  const columns = Math.max(1, Math.min(count, Math.floor((width + GAP) / (least + GAP))));
  const rows = Math.ceil(count / columns);
  const even = Math.ceil(count / Math.max(1, rows));
  const each = Math.min(most, (width - GAP * (even - 1)) / Math.max(1, even));
  return Array.from({ length: count }, (_, i) => {
    const row = Math.floor(i / even);
    const inRow = Math.min(even, count - row * even);
    const left = x + (width - inRow * each - (inRow - 1) * GAP) / 2;
    return { x: left + (i % even) * (each + GAP), y: y + row * (height + below + GAP), width: each, height };
  });
}

/** Return the position of a mark between its worker and its shard; each pair has a line of its own. */
export function placeOf(mark, boxes) {
  const worker = boxes.workers[mark.worker];
  const shard = boxes.shards[mark.shard];
  if (!worker || !shard) return null;
  const lanes = boxes.shards.length;
  const side = mark.kind === "push" ? -1 : 1;
  const near = worker.x + worker.width * ((mark.shard + 0.5 + side * 0.22) / lanes);
  const spread = ((mark.worker + 0.5) / boxes.workers.length - 0.5) * shard.width * 0.8;
  const far = shard.x + shard.width / 2 + spread + side * 4;
  const [up, down] = [shard.y + shard.height, worker.y];
  if (mark.kind === "push") return { x: near + (far - near) * mark.progress, y: down + (up - down) * mark.progress };
  if (mark.kind === "pull") return { x: far + (near - far) * mark.progress, y: up + (down - up) * mark.progress };
  const fall = mark.progress ** 2;
  return { x: far - 22 * mark.progress, y: up + (boxes.height - 20 - up) * fall };
}
