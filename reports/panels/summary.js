"use strict";
/* All findings with their verdicts, for paper. */
spray.panel({
  name: "summary",
  mount(section) {
    section.querySelector("#summary-title").textContent = spray.report.title;
    section.querySelector("#summary-print").addEventListener("click", () => window.print());
    Object.assign(this, { facts: section.querySelector("#summary-facts"), body: section.querySelector("tbody"), others: section.querySelector("#summary-others") });
  },
  update(state, changed) {
    if (state.page !== "summary" || !["page", "verdicts", "analysis"].some((name) => changed.has(name))) return;
    this.facts.textContent = spray.factLine();
    spray.fill(this.body, spray.ranked().map(([group, subject]) => this.row(group, subject)));
    const { all, orphans, symbols } = spray.verdicts;
    const ranked = new Set(spray.ranked().map(([, subject]) => subject.digest));
    const lost = orphans();
    const rest = all().filter((record) => !(record.subject === "finding" && ranked.has(record.digest)));
    const fate = (record) => {
      if (!lost.includes(record)) return "";
      const [key, overlap] = spray.report.overlaps[record.digest] ?? [];
      return key ? ` · from an earlier analysis, nearest here ${key} (${spray.percent(overlap)} the same members)` : " · from an earlier analysis, nothing like it here";
    };
    const line = (record) => `${record.subject} ${record.key}: ${symbols[record.verdict].join(" ")} · ${record.note || "no note"} · ${record.annotator || "unnamed"}, ${record.time.slice(0, 10)}${fate(record)}`;
    spray.fill(this.others, rest.map((record) => spray.element("li", {}, line(record))), rest.length ? null : spray.element("li", { class: "empty" }, "none"));
  },
  row(group, subject) {
    const record = spray.verdicts.current(subject);
    const cells = [
      spray.element("td", { class: "n" }, spray.count(subject.n)),
      spray.element("td", { class: "n" }, `${subject.flagged ? "⚑ " : ""}${spray.decimal(subject.score)}`),
      spray.element("td", {}, subject.summary || "–"),
      spray.element("td", { class: record ? `given ${record.verdict}` : "faint" }, record ? spray.verdicts.symbols[record.verdict].join(" ") : "none yet"),
      spray.element("td", {}, record?.note || "–"),
      spray.element("td", {}, record ? `${record.annotator || "unnamed"}, ${record.time.slice(0, 10)}` : "–"),
    ];
    return spray.element("tr", { class: subject.flagged ? "flagged" : null }, spray.element("td", {}, group.name), spray.element("th", { scope: "row" }, spray.element("a", { href: spray.router.address({ group: group.index, subject: subject.key }) }, subject.name)), cells);
  },
});
