// Starts the page: from the run in the document itself (a report), or from the server that sent the page.

import { App } from "./app.js";
import { decode, fromBase64 } from "./decode.js";
import { Run } from "./run.js";
import { LANGUAGES, setTexts, t } from "./texts.js";
import { readView } from "./view.js";

const embedded = document.getElementById("run");

/** The catalogue of a language, from the document or from the server. */
async function loadTexts(language) {
  const inDocument = document.getElementById("texts");
  if (inDocument) return JSON.parse(inDocument.textContent)[language];
  return (await fetch(`texts/${language}.json`)).json();
}

/** The language of the address, or else the first that the browser prefers and the page has. */
function languageOf(view) {
  const preferred = navigator.languages.map((tag) => tag.slice(0, 2));
  return view.lang ?? preferred.find((tag) => LANGUAGES.includes(tag)) ?? "en";
}

async function useLanguage(language) {
  setTexts(language, await loadTexts(language));
  document.documentElement.lang = language;
}

async function loadRun() {
  if (embedded) return new Run(await decode(fromBase64(embedded.textContent)));
  const answer = await fetch("data");
  if (!answer.ok) throw new Error(await answer.text());
  return new Run(await decode(await answer.arrayBuffer()));
}

async function main() {
  const view = readView(location.hash);
  await useLanguage(languageOf(view));
  const message = document.getElementById("message");
  message.textContent = t("loading");
  try {
    const app = new App(await loadRun(), view, useLanguage);
    message.textContent = "";
    app.start();
  } catch (error) {
    message.textContent = t("failed", { reason: error.message });
    throw error;
  }
}

main();
