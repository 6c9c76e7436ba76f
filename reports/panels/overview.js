"use strict";
/* The run at a glance: numbers, flagged findings with what was measured, the other findings, ranked classes. */
spray.panel({
  name: "overview",
  few: 12,
  mount(section) {
    this.section = section;
    for (const part of ["flagged", "findings", "more"]) this[part] = section.querySelector(`#overview-${part}`);
    this.more.addEventListener("click", () => {
      this.all = true;
      this.render(spray.state);
    });
  },
  tell({ report } = spray) {
    const { section } = this;
    section.querySelector("#overview-title").textContent = report.title;
    section.querySelector("#overview-facts").textContent = `${spray.factLine()} · ${report.name}`;
    const told = section.querySelector("#overview-circumstances");
    spray.fill(told, report.facts.circumstances.map((sentence) => spray.element("li", {}, sentence)));
    told.hidden = !report.facts.circumstances.length;
    const flagged = report.groups.reduce((sum, group) => sum + group.flagged, 0);
    const numbers = [
      [spray.audited(), "samples audited"],
      [spray.count(report.groups.length), "classes analysed"],
      [report.facts.searched ? spray.count(report.ranking.length) : "–", report.facts.searched ? "findings" : "findings: not searched"],
      [spray.isTested() ? spray.count(flagged) : "–", report.facts.searched && !spray.isTested() ? "flagged: none was tested" : "flagged as suspicious", flagged > 0],
      [spray.count(report.facts.failed.rows), report.facts.failed.rows === 1 ? "sample failed" : "samples failed"],
    ];
    spray.fill(section.querySelector("#overview-numbers"), numbers.map(([value, words, alarm]) => spray.element("div", { class: alarm ? "fact alarm" : "fact" }, spray.element("b", {}, value), spray.element("span", {}, words))));
    spray.fill(section.querySelector("#overview-classes tbody"), report.groups.map((group) => this.line(group)));
  },
  update(state, changed) {
    if (changed.has("analysis")) {
      this.all = false;
      this.tell();
    }
    if (state.page === "overview" && ["page", "analysis", "verdicts", "theme", "map", "outline"].some((name) => changed.has(name))) this.render(state);
  },
  render() {
    const ranked = spray.ranked();
    const flagged = ranked.filter(([, subject]) => subject.flagged);
    const others = ranked.filter(([, subject]) => !subject.flagged);
    const shown = this.all ? others : others.slice(0, this.few);
    const calm = !spray.isTested() ? spray.untested() : ranked.length ? "None: no finding showed all that was asked of it beforehand. Those below are ranked all the same." : "None: no cluster of any class shares a region.";
    spray.fill(this.flagged, flagged.length ? flagged.map(([group, subject]) => this.case(group, subject)) : spray.element("p", { class: "empty" }, calm));
    spray.fill(this.findings, shown.length ? shown.map(([group, subject]) => this.card(group, subject)) : spray.element("p", { class: "empty" }, "none"));
    this.more.parentElement.hidden = shown.length === others.length;
    this.more.textContent = `Show all ${spray.count(others.length)}`;
    for (const [place, entries, size] of [[this.flagged, flagged, 148], [this.findings, shown, 56]]) {
      entries.forEach(([group, subject], at) => spray.paintMean(place.children[at].querySelector("canvas"), group, subject, size));
    }
  },
  /** A flagged finding, with what the interventions did. */
  case(group, subject) {
    const record = spray.verdicts.current(subject);
    const address = spray.router.address({ group: group.index, subject: subject.key });
    return spray.element(
      "article",
      { class: "case-flagged", "data-key": subject.key },
      spray.element("a", { href: address, tabindex: "-1", "aria-hidden": "true" }, spray.element("canvas", {})),
      spray.element(
        "div",
        { class: "words" },
        spray.element("p", { class: "eyebrow" }, spray.element("b", {}, "⚑ Suspicious"), ` · ${spray.decimal(subject.score)}`, record ? spray.element("span", { class: `given ${record.verdict}` }, ` · ${spray.verdicts.symbols[record.verdict].join(" ")}`) : " · no verdict yet"),
        spray.element("h3", {}, spray.element("a", { href: address }, `${group.name} · ${subject.name}`)),
        spray.element("p", { class: "summary" }, subject.summary ? spray.caseWords(subject.summary) : spray.caseTitle(group, subject)),
      ),
      spray.element(
        "div",
        { class: "flagged" },
        spray.effects(subject, group).filter(Boolean).map(spray.effect),
        spray.element("p", { class: "ways" }, spray.element("a", { href: address }, "its samples, and your verdict →"), spray.element("a", { href: spray.router.address({ page: "cluster", group: group.index, subject: subject.key }) }, "all evidence, compare →")),
      ),
      spray.proof(group, subject, { most: 6, size: 48, silent: true }),
    );
  },
  card(group, subject) {
    const record = spray.verdicts.current(subject);
    return spray.element(
      "a",
      { class: "card-finding", href: spray.router.address({ group: group.index, subject: subject.key }), title: subject.summary },
      spray.element("canvas", { "aria-hidden": "true" }),
      spray.element(
        "div",
        {},
        spray.element("h3", {}, `${group.name} · ${subject.name}`),
        spray.element("p", { class: "eyebrow" }, `suspicion ${spray.decimal(subject.score)} · ${spray.count(subject.n)} of ${spray.count(group.n)}`),
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
      spray.element("td", { class: group.flagged ? "flagged" : null }, spray.element("span", { class: "bar-cell wide" }, spray.meter(group.suspicion), spray.decimal(group.suspicion))),
      spray.element("td", { class: "n" }, String(group.subjects.filter((entry) => entry.kind === "finding").length)),
      spray.element("td", { class: "n" }, group.flagged ? `⚑ ${group.flagged}` : "0"),
    );
  },
});

/** The mean map of a finding of any class; where none is stored with it, that of its members, once its class is there. */
spray.paintMean = (canvas, group, subject, size) => {
  const { analysis } = spray.report;
  const paint = (chunk) => {
    const mean = spray.meanOfSubject(chunk, subject);
    if (mean) spray.tiles.average(canvas, mean.codes, mean.shape, { size, region: subject.region });
    else spray.tiles.empty(canvas, { size });
  };
  paint(null);
  if (!subject.mean_map) spray.chunk(group.index).then((chunk) => spray.report.analysis === analysis && paint(chunk), (error) => spray.trouble(`Pictures are missing: ${error.message}`));
};

/** Suspicion as a bar on one scale for all pages: it ends at the highest of the report, or at 0.3 where none is as high. */
spray.meter = (score) => {
  const highest = Math.max(0.3, ...spray.report.groups.map((group) => group.suspicion ?? 0));
  return spray.element("span", { class: "meter" }, spray.element("i", { style: { width: `${(100 * Math.max(0, score ?? 0)) / highest}%` } }));
};

/** All findings as [group, subject], the most suspicious first. */
spray.ranked = () => {
  const places = new Map(spray.report.groups.flatMap((group) => group.subjects.map((entry) => [entry.key, [group, entry]])));
  return spray.report.ranking.map((key) => places.get(key)).filter(Boolean);
};

/** Whether something could have been flagged: findings were searched, and tested where there are any. */
spray.isTested = ({ facts } = spray.report) => facts.searched && (facts.findings === 0 || facts.tested > 0);

/** That nobody has looked for findings in this analysis, or tested them, and where that was done. */
spray.untested = () => {
  const { analyses, analysis, facts } = spray.report;
  const others = analyses.filter((entry) => entry.analysis !== analysis && spray.isTested(entry));
  const flagged = (entry) => entry.groups.reduce((sum, group) => sum + group.flagged, 0);
  return [
    facts.searched
      ? `${spray.count(facts.findings)} ${facts.findings === 1 ? "finding, not" : "findings, none"} tested by an intervention: whether the model uses them is not known, and nothing can be flagged. “spray verify” tests them.`
      : "Findings were not searched in this analysis: nothing is known of its suspicions. “spray verify” searches and tests them.",
    others.map((entry) => [" ", spray.element("a", { href: spray.router.address({ page: "overview", analysis: entry.analysis }) }, `${spray.count(flagged(entry))} flagged in ${entry.name}`)]),
  ];
};

/** How many samples have been audited: "77 of 80" where some failed. */
spray.audited = ({ samples, failed } = spray.report.facts) => (failed.rows ? `${spray.count(samples - failed.rows)} of ${spray.count(samples)}` : spray.count(samples));

spray.factLine = () => {
  const { facts } = spray.report;
  const flagged = spray.report.groups.reduce((sum, group) => sum + group.flagged, 0);
  const found = !facts.searched ? "findings not searched" : !spray.isTested() ? "findings not tested" : flagged === 1 ? "1 finding flagged" : `${spray.count(flagged)} findings flagged`;
  return `${found} · ${spray.audited()} samples · ${spray.count(facts.classes)} ${facts.classes === 1 ? "class" : "classes"}`;
};
