// Buttons that operate a running job. They need the secret of the dashboard, which is part of the address it prints.

import { byId, make, setText } from "./dom.js";
import { sentenceText, t } from "./texts.js";

const STALL_S = 3;
const SLOWED = { factor: 3, seconds: 10 };
const SETTINGS = { mode: "mode", compensation: "staleness_policy", lr: "learning_rate" }; // by their names in messages of progress
const KEPT_AS = "downpour-secret"; // in the session storage of the tab, so that the page can be reloaded

/** Move the secret from the address, which a user may copy and share, to the session storage of the tab. */
export function takeSecret() {
  const given = new URLSearchParams(location.hash.slice(1));
  const secret = given.get("secret");
  if (secret) {
    sessionStorage.setItem(KEPT_AS, secret);
    given.delete("secret");
    history.replaceState(null, "", `#${given}`);
  }
}

/** Return the text of a setting; a number may be written with the decimal comma of Spanish. */
function decimal(name, text) {
  return name === "lr" && document.documentElement.lang === "es" ? text.replace(",", ".") : text;
}

export class Controls {
  constructor() {
    this.secret = sessionStorage.getItem(KEPT_AS);
    byId("controls").hidden = false;
    byId("pause").addEventListener("click", () => this.act({ action: this.paused ? "resume" : "pause" }));
    byId("drain").addEventListener("click", () => {
      if (confirm(t("drain_confirm"))) this.act({ action: "drain" });
    });
    byId("checkpoint").addEventListener("click", () => this.act({ action: "checkpoint" }));
    byId("add-worker").addEventListener("click", () => this.act({ action: "add-worker", request: crypto.randomUUID() }));
    byId("settings").addEventListener("submit", (event) => {
      event.preventDefault();
      this.set();
    });
  }

  /** Enable the buttons whose action is possible in the current phase; without the secret, explain why none is. */
  show(run) {
    const over = ["draining", "finishing", "ended", "failed"].includes(run.live.phase);
    this.paused = run.live.paused;
    byId("pause").disabled = !this.secret || run.live.phase !== "training";
    setText(byId("pause"), t(this.paused ? "job_resume" : "job_pause"));
    byId("drain").disabled = !this.secret || over;
    setText(byId("drain"), t("drain"));
    for (const id of ["checkpoint", "add-worker", "set", "set-mode", "set-compensation", "set-lr"]) {
      byId(id).disabled = !this.secret || run.live.phase !== "training";
    }
    setText(byId("checkpoint"), t("job_checkpoint"));
    setText(byId("add-worker"), t("job_add_worker"));
    setText(byId("set"), t("job_set"));
    this.showSettings(run.live);
    if (!this.secret) setText(byId("controls-status"), t("no_secret"));
    const here = run.live.workers.map((worker) => worker.worker).join();
    const key = [here, over, t("kill")].join("|");
    if (key === this.shown) return;
    this.shown = key;
    byId("worker-controls").replaceChildren(...run.live.workers.map(({ worker }) => {
      const group = make("span", `${t("worker_number", { number: worker })}: `, { class: "worker-control" });
      for (const [action, how] of [["kill", {}], ["stall", { seconds: STALL_S }], ["slow", SLOWED]]) {
        const button = make("button", t(action, how), { "data-action": action, "data-number": worker });
        button.disabled = !this.secret || over;
        button.addEventListener("click", () => this.act({ action, worker, ...how }));
        group.append(button);
      }
      return group;
    }));
  }

  /** Show the settings that are in effect, except in a field that has been edited. */
  showSettings(progress) {
    this.inEffect = { mode: progress.mode, compensation: progress.staleness_policy || "none", lr: progress.learning_rate ? String(progress.learning_rate) : "" };
    for (const name of Object.keys(SETTINGS)) {
      const field = byId(`set-${name}`);
      if (field.value === (this.filled?.[name] ?? "") && document.activeElement !== field) field.value = this.inEffect[name];
    }
    byId("set-lr").disabled ||= !progress.learning_rate; // a script sets its own
    this.filled = { ...this.inEffect };
  }

  /** Send the settings that have been edited. */
  async set() {
    const request = { action: "set" };
    for (const name of Object.keys(SETTINGS)) {
      const value = decimal(name, byId(`set-${name}`).value.trim());
      if (value && value !== this.inEffect[name]) request[name] = value;
    }
    const refused = await this.act(request);
    if (!refused) return;
    for (const name of Object.keys(SETTINGS)) byId(`set-${name}`).value = this.inEffect[name];
  }

  /** Send an action to the dashboard, show its answer, and return whether it was refused. */
  async act(request) {
    byId("controls-status").textContent = t("acting");
    try {
      const answer = await fetch("control", {
        method: "POST", headers: { "Content-Type": "application/json", "X-Downpour-Secret": this.secret },
        body: JSON.stringify(request),
      });
      const { done, refused } = await answer.json();
      byId("controls-status").textContent = done ? t("acted", { what: sentenceText(done) }) : t("refused", { reason: sentenceText(refused) });
      return !done;
    } catch (error) {
      byId("controls-status").textContent = t("refused", { reason: error.message });
      return true;
    }
  }
}
