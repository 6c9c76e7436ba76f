"use strict";
/* All findings with their verdicts, for paper: the flagged ones in full, the others a line each. */
spray.panel({
  name: "summary",
  mount(section) {
    section.querySelector("#summary-title").textContent = spray.report.title;
    section.querySelector("#summary-print").addEventListener("click", () => window.print());
    for (const part of ["facts", "state", "flagged", "others", "identity"]) this[part] = section.querySelector(`#summary-${part}`);
    this.body = section.querySelector("tbody");
    window.addEventListener("beforeprint", () => this.identify(`Printed ${new Date().toISOString().slice(0, 10)}.`));
    window.addEventListener("afterprint", () => this.identify());
  },
  update(state, changed) {
    if (state.page !== "summary" || !["page", "verdicts", "analysis", "map", "theme"].some((name) => changed.has(name))) return;
    const ranked = spray.ranked();
    const flagged = ranked.filter(([, subject]) => subject.flagged);
    this.facts.textContent = `${spray.factLine()} · ${spray.report.name}`;
    this.state.textContent = !spray.report.facts.searched ? "findings not searched" : `${spray.isTested() ? "" : "findings not tested; "}${this.reviewed(ranked, flagged)}`;
    spray.fill(this.flagged, flagged.length ? flagged.map(([group, subject]) => this.case(group, subject)) : spray.element("p", { class: "empty" }, spray.isTested() ? "none" : spray.untested()));
    flagged.forEach(([group, subject], at) => spray.paintMean(this.flagged.children[at].querySelector("canvas"), group, subject, 110));
    spray.fill(this.body, ranked.filter(([, subject]) => !subject.flagged).map(([group, subject]) => this.row(group, subject)));
    this.tellOthers(ranked);
    this.identify();
  },
  /** What was judged: as a printed page has to say. */
  identify(printed = "") {
    this.identity.textContent = `Store ${spray.report.store}, analysis ${spray.report.analysis}, ${spray.report.writer}. ${printed}`.trim();
  },
  reviewed(ranked, flagged) {
    const words = ([value, [, word]], entries) => [entries.filter(([, subject]) => spray.verdicts.current(subject)?.verdict === value).length, word];
    const told = (entries) => Object.entries(spray.verdicts.symbols).map((symbol) => words(symbol, entries)).filter(([count]) => count).map(([count, word]) => `${count} ${word}`).join(", ");
    const seen = (entries) => entries.filter(([, subject]) => spray.verdicts.current(subject)).length;
    const one = (name, entries) => `${spray.count(seen(entries))} of ${spray.count(entries.length)} ${name} reviewed${seen(entries) ? ` (${told(entries)})` : ""}`;
    return [...(flagged.length ? [one("flagged", flagged)] : []), one("findings", ranked)].join("; ");
  },
  tellOthers(ranked) {
    const { all, orphans, symbols } = spray.verdicts;
    const known = new Set(ranked.map(([, subject]) => subject.digest));
    const lost = orphans();
    const rest = all().filter((record) => !(record.subject === "finding" && known.has(record.digest)));
    const whole = new Map(); // by what they are about
    for (const record of rest) {
      const about = record.subject === "sample" ? `sample:${record.key}` : spray.verdicts.about(record);
      whole.set(about, [...(whole.get(about) ?? []), record]);
    }
    const words = [...whole.values()].flatMap(spray.verdicts.lastWords);
    const former = rest.length - words.length;
    const fate = (record) => {
      if (!lost.includes(record)) return "";
      const [key, overlap] = spray.report.overlaps[spray.verdicts.about(record)] ?? [];
      return key ? ` · from an earlier analysis, nearest here ${key} (${spray.percent(overlap)} the same members)` : " · from an earlier analysis, nothing like it in the classes looked at so far";
    };
    const line = (record) => `${record.subject} ${record.key}: ${symbols[record.verdict].join(" ")} · ${record.note || "no note"} · ${record.annotator || "unnamed"}, ${record.time.slice(0, 10)}${fate(record)}`;
    const replaced = former ? spray.element("li", { class: "faint" }, `${spray.count(former)} ${former === 1 ? "word" : "words"} that their authors replaced or took back: in the exported file.`) : null;
    spray.fill(this.others, words.map((record) => spray.element("li", {}, line(record))), replaced, rest.length ? null : spray.element("li", { class: "empty" }, "none"));
  },
  /** Who said what, and when, about a finding. */
  judged(subject) {
    const record = spray.verdicts.current(subject);
    const said = spray.verdicts.said(subject);
    const by = spray.lines(said.map(({ annotator, time }) => `${annotator || "unnamed"}, ${time.slice(0, 10)}`));
    if (record?.verdict === "conflict") {
      const each = said.map((one) => [spray.element("br"), spray.element("span", { class: `given ${one.verdict}` }, `${spray.verdicts.symbols[one.verdict].join(" ")} (${one.annotator || "unnamed"})`)]);
      return { verdict: spray.element("span", {}, spray.element("b", {}, spray.verdicts.symbols.conflict.join(" ")), each), note: spray.lines(spray.verdicts.reasons(said)), by };
    }
    if (!record) return { verdict: spray.element("span", { class: "faint" }, "no verdict yet"), note: "–", by: "–" };
    const verdict = spray.element("span", { class: `given ${record.verdict}` }, spray.verdicts.symbols[record.verdict].join(" "));
    return { verdict, note: spray.lines(spray.verdicts.reasons(said)), by };
  },
  case(group, subject) {
    const { verdict, note, by } = this.judged(subject);
    const pair = (name, content) => [spray.element("dt", {}, name), spray.element("dd", {}, content)];
    return spray.element(
      "section",
      { class: "card flagged signed" },
      spray.element("canvas", { role: "img", "aria-label": `mean relevance of ${group.name} ${subject.name}` }),
      spray.element(
        "div",
        {},
        spray.element("p", { class: "eyebrow" }, spray.element("b", {}, "⚑ Suspicious"), ` · ${spray.decimal(subject.score)}`),
        spray.element("h3", {}, spray.element("a", { href: spray.router.address({ group: group.index, subject: subject.key }) }, `${group.name} · ${subject.name}`)),
        spray.element("p", { class: "summary" }, subject.summary ? spray.caseWords(subject.summary) : spray.caseTitle(group, subject)),
      ),
      spray.element("dl", { class: "pairs" }, pair("verdict", verdict), pair("note", note), pair("by", by)),
    );
  },
  row(group, subject) {
    const { verdict, note, by } = this.judged(subject);
    const [removed, pasted] = spray.effects(subject, group).map((entry) => (entry ? spray.signed(entry.mean, entry.sign) : "–"));
    const figures = { samples: spray.count(subject.n), suspicion: spray.decimal(subject.score), removed, pasted };
    const cells = Object.entries(figures).map(([label, text]) => spray.element("td", { class: "n", "data-label": label }, text));
    const said = Object.entries({ verdict, note, by }).map(([label, content]) => spray.element("td", { "data-label": label, class: content === "–" ? "nothing" : null }, content));
    const link = spray.element("a", { href: spray.router.address({ group: group.index, subject: subject.key }) }, subject.name);
    return spray.element("tr", { title: subject.summary || null }, spray.element("td", {}, group.name), spray.element("th", { scope: "row" }, link), cells, said);
  },
});

/** Texts below each other; a dash where there is none. */
spray.lines = (texts) => (texts.length ? texts.map((text, at) => [at ? spray.element("br") : null, text]) : "–");
