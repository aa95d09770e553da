// Buttons that operate a running job. They need the secret of the dashboard, which is part of the address it prints.

import { byId, make } from "./dom.js";
import { t } from "./texts.js";

const STALL_S = 3;
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

export class Controls {
  constructor() {
    this.secret = sessionStorage.getItem(KEPT_AS);
    byId("controls").hidden = false;
    byId("pause").addEventListener("click", () => this.act({ action: this.paused ? "resume" : "pause" }));
    byId("drain").addEventListener("click", () => {
      if (confirm(t("drain_confirm"))) this.act({ action: "drain" });
    });
  }

  /** Enable the buttons whose action is possible in the current phase; without the secret, explain why none is. */
  show(run) {
    const over = ["draining", "finishing", "ended", "failed"].includes(run.live.phase);
    this.paused = run.live.paused;
    byId("pause").disabled = !this.secret || run.live.phase !== "training";
    byId("pause").textContent = t(this.paused ? "job_resume" : "job_pause");
    byId("drain").disabled = !this.secret || over;
    byId("drain").textContent = t("drain");
    if (!this.secret) byId("controls-status").textContent = t("no_secret");
    const here = run.live.workers.map((worker) => worker.worker).join();
    const key = [here, over, t("kill")].join("|");
    if (key === this.shown) return;
    this.shown = key;
    byId("worker-controls").replaceChildren(...run.live.workers.map(({ worker }) => {
      const group = make("span", `${t("worker_number", { number: worker })}: `, { class: "worker-control" });
      for (const [action, seconds] of [["kill", undefined], ["stall", STALL_S]]) {
        const button = make("button", t(action, { seconds: STALL_S }), { "data-action": action, "data-number": worker });
        button.disabled = !this.secret || over;
        button.addEventListener("click", () => this.act({ action, worker, seconds }));
        group.append(button);
      }
      return group;
    }));
  }

  async act(request) {
    byId("controls-status").textContent = t("acting");
    try {
      const answer = await fetch("control", {
        method: "POST", headers: { "Content-Type": "application/json", "X-Downpour-Secret": this.secret },
        body: JSON.stringify(request),
      });
      const { done, refused } = await answer.json();
      byId("controls-status").textContent = done ? t("acted", { what: done }) : t("refused", { reason: refused });
    } catch (error) {
      byId("controls-status").textContent = t("refused", { reason: error.message });
    }
  }
}
