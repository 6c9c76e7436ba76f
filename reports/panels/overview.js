"use strict";
/* The run at a glance: numbers, ranked findings, ranked classes. */
spray.panel({
  name: "overview",
  mount(section) {
    this.section = section;
    this.cards = section.querySelector("#overview-findings");
  },
  tell({ report } = spray) {
    const { section } = this;
    section.querySelector("#overview-title").textContent = report.title;
    section.querySelector("#overview-facts").textContent = spray.factLine();
    const flagged = report.groups.reduce((sum, group) => sum + group.flagged, 0);
    const numbers = [
      [spray.count(report.facts.samples), "samples audited"],
      [String(report.groups.length), "classes analysed"],
      [String(report.ranking.length), "findings"],
      [String(flagged), "flagged as suspicious", flagged > 0],
      [spray.count(report.facts.failed.samples + report.facts.failed.relevance), "failed rows"],
    ];
    spray.fill(section.querySelector("#overview-numbers"), numbers.map(([value, words, alarm]) => spray.element("div", { class: alarm ? "fact alarm" : "fact" }, spray.element("b", {}, value), spray.element("span", {}, words))));
    spray.fill(section.querySelector("#overview-classes tbody"), report.groups.map((group) => this.line(group)));
  },
  update(state, changed) {
    if (changed.has("analysis")) this.tell();
    if (state.page !== "overview" || !["page", "analysis", "verdicts", "theme", "map", "outline"].some((name) => changed.has(name))) return;
    const found = spray.ranked().slice(0, 24);
    spray.fill(this.cards, found.map(([group, subject]) => this.card(group, subject)), found.length ? null : spray.element("p", { class: "empty" }, "No finding: no cluster of any class shares a region."));
    found.forEach(([, subject], at) => {
      const canvas = this.cards.children[at].querySelector("canvas");
      if (subject.mean_map) spray.tiles.average(canvas, spray.bytesOf(subject.mean_map), subject.mean_map.shape, { size: 96, region: subject.region });
    });
  },
  card(group, subject) {
    const record = spray.verdicts.current(subject);
    return spray.element(
      "a",
      { class: subject.flagged ? "card-finding flagged" : "card-finding", href: spray.router.address({ group: group.index, subject: subject.key }) },
      spray.element("canvas", { "aria-hidden": "true" }),
      spray.element(
        "div",
        {},
        spray.element("p", { class: "eyebrow" }, subject.flagged ? spray.element("b", {}, "⚑ Suspicious") : "Not flagged", ` · ${spray.decimal(subject.score)}`),
        spray.element("h3", {}, `${group.name} · ${subject.name}`),
        spray.element("p", {}, subject.summary || spray.caseTitle(group, subject)),
        record ? spray.element("p", { class: `given ${record.verdict}` }, spray.verdicts.symbols[record.verdict].join(" ")) : null,
      ),
    );
  },
  line(group) {
    return spray.element(
      "tr",
      {},
      spray.element("th", { scope: "row" }, spray.element("a", { href: spray.router.address({ group: group.index }) }, group.name)),
      spray.element("td", { class: "n" }, spray.count(group.n)),
      spray.element("td", { class: "n" }, group.status === "ok" ? String(group.strategies) : "–"),
      spray.element("td", {}, spray.element("span", { class: "bar-cell wide" }, spray.element("span", { class: "meter" }, spray.element("i", { style: { width: `${100 * Math.min(1, Math.max(0, group.suspicion ?? 0))}%` } })), spray.decimal(group.suspicion))),
      spray.element("td", { class: "n" }, String(group.subjects.filter((entry) => entry.kind === "finding").length)),
      spray.element("td", { class: "n" }, group.flagged ? `⚑ ${group.flagged}` : "0"),
    );
  },
});

/** All findings as [group, subject], the most suspicious first. */
spray.ranked = () => {
  const places = new Map(spray.report.groups.flatMap((group) => group.subjects.map((entry) => [entry.key, [group, entry]])));
  return spray.report.ranking.map((key) => places.get(key)).filter(Boolean);
};

spray.factLine = () => {
  const { facts, name } = spray.report;
  const flagged = spray.report.groups.reduce((sum, group) => sum + group.flagged, 0);
  const found = flagged === 1 ? "1 finding flagged" : `${flagged} findings flagged`;
  return `${found} · ${spray.count(facts.samples)} samples · ${facts.classes} classes · ${name}`;
};
