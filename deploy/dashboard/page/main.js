// The entry point of the page. The run is in the document (a report), or the server that sent the page has it.

import { App } from "./app.js";
import { Controls, takeSecret } from "./controls.js";
import { decode, fromBase64 } from "./decode.js";
import { frameDrawn } from "./dom.js";
import { LiveJob } from "./live.js";
import { Run } from "./run.js";
import { LANGUAGES, sentenceText, setTexts, t } from "./texts.js";
import { readView } from "./view.js";

const embedded = document.getElementById("run");

const catalogues = JSON.parse(document.getElementById("texts")?.textContent ?? "{}");

/** Return the texts of a language, from the document or from the server. */
async function loadTexts(language) {
  catalogues[language] ??= await (await fetch(`texts/${language}.json`)).json();
  return catalogues[language];
}

/** Return the language of the address, or else the first of the browser's languages that the page has. */
function languageOf(view) {
  const preferred = navigator.languages.map((tag) => tag.slice(0, 2));
  return view.lang ?? preferred.find((tag) => LANGUAGES.includes(tag)) ?? "en";
}

async function useLanguage(language) {
  setTexts(language, await loadTexts(language));
  document.documentElement.lang = language;
}

/** Return the decoded block of the run, from the document or from the server. */
async function loadBlock() {
  if (embedded) return decode(fromBase64(embedded.textContent));
  const answer = await fetch("data");
  if (!answer.ok) throw new Error(await answer.text());
  return decode(await answer.arrayBuffer());
}

/** Follow a running job: the first message creates the application, and later messages update it. */
function follow(view) {
  LANGUAGES.forEach(loadTexts); // now, because the server may end with the job
  const message = document.getElementById("message");
  const job = new LiveJob();
  const events = new EventSource("events");
  let [app, controls] = [null, null];
  let taken = Promise.resolve();
  let waiting = 0; // messages
  const pause = () => (waiting > 1 ? null : frameDrawn()); // a page that is late does not wait for frames
  const take = async (data) => {
    const { run, shifted } = await job.take(JSON.parse(data), pause);
    waiting -= 1;
    message.textContent = "";
    if (!app) {
      app = new App(run, view, useLanguage);
      app.start();
      controls = new Controls();
    } else app.setRun(run, shifted);
    controls.show(run);
  };
  events.addEventListener("progress", (event) => {
    waiting += 1;
    taken = taken.then(() => take(event.data)); // one after the other, because decoding is asynchronous
  });
  events.addEventListener("trouble", (event) => { message.textContent = t("trouble", { reason: sentenceText(JSON.parse(event.data).reason) }); });
  events.addEventListener("over", () => events.close());
  events.addEventListener("error", () => { message.textContent = t("dashboard_gone"); });
}

async function main() {
  takeSecret();
  const view = readView(location.hash);
  await useLanguage(languageOf(view));
  const message = document.getElementById("message");
  message.textContent = t("loading");
  try {
    const block = await loadBlock();
    if (block.header.kind === "live") {
      follow(view);
      return;
    }
    const app = new App(new Run(block), view, useLanguage);
    message.textContent = "";
    app.start();
  } catch (error) {
    message.textContent = t("failed", { reason: error.message });
    throw error;
  }
}

main();
