"use strict";
/* Findings, or the clusters of one clustering, as a table: click or Enter selects the members. */
spray.panel({
  name: "clusters",
  mount(section) {
    Object.assign(this, { body: section.querySelector("tbody"), place: section.querySelector("#clustering"), title: section.querySelector("#clusters-title") });
    this.more = spray.moreBelow(section.querySelector(".scroll"), () => this.body.children);
    this.body.addEventListener("click", (event) => this.choose(event.target.closest("tr")));
    this.body.addEventListener("keydown", (event) => {
      const row = event.target.closest("tr");
      const next = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling }[event.key];
      if (next) next.focus();
      else if (event.key !== "Enter" && event.key !== " ") return;
      else this.choose(row);
      event.preventDefault();
    });
  },
  choose(row) {
    if (row?.dataset.key) spray.router.go({ group: spray.state.group.index, subject: row.dataset.key });
  },
  update(state, changed) {
    const { group } = state;
    if (!state.chunk) return;
    if (changed.has("group")) this.offer(state);
    if (["group", "clustering", "verdicts", "theme"].some((name) => changed.has(name))) {
      if (this.choice) spray.choose(this.choice, state.clustering);
      const subjects = group.subjects.filter((entry) => entry.clustering === state.clustering);
      this.title.textContent = state.clustering === "findings" ? "Findings" : "Clusters";
      const none = spray.element("tr", {}, spray.element("td", { colspan: "6", class: "empty" }, state.clustering !== "findings" || spray.report.facts.searched ? "none in this class" : "not searched in this analysis"));
      spray.refill(this.body, () => spray.fill(this.body, subjects.length ? subjects.map((entry) => this.row(group, entry)) : none));
      this.more();
    }
    for (const row of this.body.children) {
      const on = row.dataset.key === state.subject?.key && state.origin !== "brush";
      row.setAttribute("aria-selected", String(on));
    }
  },
  offer({ group, clustering }) {
    const names = [...new Set(["findings", ...group.subjects.map((entry) => entry.clustering)])];
    this.choice = spray.segments("Show", names.map((name) => [name, name]), clustering, (name) => {
      spray.set({ clustering: name, colour: name });
    });
    spray.fill(this.place, this.choice);
  },
  row(group, entry) {
    const record = spray.verdicts.current(entry);
    const earlier = record ? null : spray.verdicts.inherited(entry);
    const [symbol, word] = record || earlier ? spray.verdicts.symbols[(record ?? earlier.record).verdict] : ["", "–"];
    const suspicion = entry.score === null
      ? spray.element("td", { class: "faint" }, "–")
      : spray.element("td", {}, spray.element("span", { class: "bar-cell" }, spray.meter(entry.score), spray.decimal(entry.score)));
    return spray.element(
      "tr",
      { "data-key": entry.key, tabindex: "0", class: entry.flagged ? "flagged" : null, title: entry.flagged ? "flagged by the machine" : null },
      spray.element("th", { scope: "row" }, spray.element("i", { class: "swatch", style: { background: entry.name === "noise" ? spray.theme.colour("dot") : spray.subjectColour(group, entry) } }), entry.flagged ? `⚑ ${entry.name}` : entry.name),
      spray.element("td", { class: "n" }, spray.count(entry.n)),
      suspicion,
      spray.element("td", { class: "n" }, spray.percent(entry.accuracy)),
      spray.element("td", { class: "n" }, spray.percent(entry.confidence)),
      spray.element("td", { class: record ? `given ${record.verdict}` : "faint", title: earlier ? "from an earlier analysis: please confirm" : null }, `${symbol} ${word}${earlier ? " ?" : ""}`.trim()),
    );
  },
});
