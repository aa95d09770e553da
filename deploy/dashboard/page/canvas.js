// Canvases and charts: their sizes, which are observed because reading them would force a layout, and whether they are
// in view.

const sizes = new WeakMap();
const outOfView = new WeakSet();
let observers = null;
let changed = () => {};

/** Call a function whenever a canvas or a chart has another size or comes into view, so that it must be drawn again. */
export function onCanvasChange(callback) {
  changed = callback;
}

function observe(element) {
  observers ??= [
    new ResizeObserver((entries) => {
      for (const { target, contentRect } of entries) sizes.set(target, contentRect);
      changed();
    }),
    new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) outOfView.delete(target);
        else outOfView.add(target);
      }
      if (entries.some((entry) => entry.isIntersecting)) changed();
    }, { rootMargin: "100px" }),
  ];
  sizes.set(element, { width: element.clientWidth, height: element.clientHeight });
  for (const observer of observers) observer.observe(element);
}

/** Return the size of an element in CSS pixels, or null if it is not in view and needs no drawing. */
export function sizeInView(element) {
  if (!sizes.has(element)) observe(element);
  if (outOfView.has(element)) return null;
  const size = sizes.get(element);
  return { width: Math.max(120, Math.round(size.width)), height: Math.max(40, Math.round(size.height)) };
}

/** Clear a canvas; return its context and its size in CSS pixels, or null if it is not in view and needs no drawing. */
export function prepare(canvas) {
  const size = sizeInView(canvas);
  if (!size) return null;
  const { width, height } = size;
  const [wide, high] = [Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio)];
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  const context = canvas.getContext("2d");
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  return { context, width, height };
}
