"use strict";
/* One finding or cluster on a page of its own, or two side by side: maps, members, interventions, metadata. */
spray.panel({
  name: "cluster",
  size: 76,
  shown: 10,
  mount(section) {
    for (const part of ["back", "title", "class", "with", "columns"]) this[part] = section.querySelector(`#cluster-${part}`);
    section.querySelector("#cluster-judge").addEventListener("click", (event) => {
      event.preventDefault(); // the address is the router's
      document.getElementById("cluster-verdict").scrollIntoView({ block: "center" });
      document.querySelector("#verdict-buttons [tabindex='0']").focus({ preventScroll: true });
    });
    this.class.addEventListener("change", () => {
      this.offer(spray.state, spray.report.groups.find((entry) => String(entry.index) === this.class.value));
      this.with.focus();
    });
    this.with.addEventListener("change", () => {
      const { group, subject } = spray.state;
      spray.router.go({ page: "cluster", group: group.index, subject: subject.key, other: this.with.value || null });
    });
  },
  update(state, changed) {
    if (state.page !== "cluster" || !state.chunk) return;
    if (["page", "group", "chunk", "subject", "other", "otherChunk"].some((name) => changed.has(name))) this.render(state);
    else if (spray.repaints(changed)) this.paint();
    if (changed.has("verdicts")) this.tellVerdicts();
  },
  render(state) {
    const { group, chunk, subject, other, otherGroup, otherChunk } = state;
    this.back.textContent = `← ${group.name}`;
    this.back.href = spray.router.address({ group: group.index, subject: subject?.key });
    const name = (of, entry) => `${otherGroup && otherGroup !== group ? `${of.name} ` : ""}${spray.subjectName(entry)}`;
    this.title.textContent = subject ? `${name(group, subject)}${other ? ` and ${name(otherGroup, other)}` : ""}` : group.name;
    spray.options(this.class, spray.report.groups.map((entry) => [String(entry.index), entry.name]), String((otherGroup ?? group).index));
    this.class.closest("label").hidden = spray.report.groups.length < 2;
    this.offer(state, otherGroup ?? group);
    const shown = [subject && { group, chunk, subject }, other && { group: otherGroup, chunk: otherChunk, subject: other }];
    this.cases = shown.filter(Boolean);
    spray.refill(this.columns, () => spray.fill(this.columns, this.cases.map((entry) => this.column(entry))));
    this.columns.className = other ? "two" : "";
    this.tellVerdicts();
    this.paint();
  },
  /** What of a class there is to compare with. */
  offer({ subject, other }, from) {
    const rest = from.subjects.filter((entry) => entry !== subject);
    const name = (entry) => `${entry.kind === "finding" ? "" : `${entry.clustering} `}${spray.subjectName(entry)} (${spray.count(entry.n)})`;
    spray.options(this.with, [["", other ? "nothing" : "choose…"], ...rest.map((entry) => [entry.key, name(entry)])], other?.key ?? "");
  },
  column({ group, chunk, subject }) {
    const members = Array.from(chunk.members[subject.key]);
    const strip = (title, positions) => [spray.element("h3", {}, title), spray.strip(group, chunk, positions, { label: title, subject })];
    const judged = subject === spray.state.subject;
    const alone = judged ? null : spray.element("a", { class: "alone", href: spray.router.address({ page: "cluster", group: group.index, subject: subject.key, other: spray.state.subject?.key }) }, "judge this one");
    const outer = members.slice(-this.shown).reverse();
    return spray.element(
      "section",
      { class: subject.flagged ? "card flagged" : "card", "data-key": subject.key },
      spray.element("div", { class: "case" },
        spray.element("figure", { class: "mean" }, spray.element("canvas", { role: "img", "aria-label": `mean relevance of ${spray.subjectName(subject)}` }), spray.element("figcaption", {}, "mean relevance")),
        spray.element("div", { class: "head" }, spray.element("p", { class: "eyebrow" }, subject.flagged ? spray.element("b", {}, "⚑ Suspicious") : subject.kind !== "finding" ? `${subject.clustering} cluster` : subject.tested ? "Not flagged" : "Not tested", subject.score === null ? "" : ` · suspicion ${spray.decimal(subject.score)}`, spray.element("span", { class: "faint", title: "its name in the store and on the command line" }, ` · ${subject.key}`), alone && " · ", alone), spray.element("h2", {}, spray.caseTitle(group, subject))),
        spray.element("div", { class: "story" }, spray.element("p", { class: "summary" }, spray.caseWords(spray.caseSummary(group, subject), { titled: true })), spray.element("p", {})),
      ),
      this.proven(group, subject),
      strip("Most central members", members.slice(0, this.shown)),
      members.length > this.shown ? strip("Least central members", outer) : null,
      spray.element("h3", {}, "What goes along with it"),
      spray.associations(chunk, members),
      spray.tested(subject),
      this.further(subject),
    );
  },
  /** Effects and pictures of the interventions. */
  proven(group, subject) {
    if (subject.kind !== "finding") return null;
    const plots = spray.effectPlots(subject, group);
    const parts = Object.entries(subject.parts ?? {}).filter(([, value]) => value === null || typeof value === "number");
    return [
      spray.element("h3", {}, "Does the model use it?"),
      spray.element("div", { class: "proven" }, plots.length ? spray.element("div", { class: "plots" }, plots, spray.asked(subject)) : spray.element("p", { class: "faint" }, "No intervention was run on this finding: whether the model uses it is not shown."), spray.proof(group, subject)),
      parts.length ? [spray.element("h3", {}, "Parts of the suspicion"), spray.element("dl", { class: "parts wide" }, parts.map(([name, value]) => spray.part(name, value)))] : null,
    ];
  },
  further(subject) {
    const rest = subject.kind === "finding" ? spray.furtherEvidence(subject) : null;
    return rest ? [spray.element("h3", {}, "Further evidence as recorded"), rest] : null;
  },
  tellVerdicts() {
    this.cases.forEach(({ subject }, at) => {
      const place = this.columns.children[at].querySelector(".story p:last-child");
      const record = spray.verdicts.current(subject);
      place.className = record ? `given ${record.verdict}` : "";
      const each = spray.verdicts.said(subject).map(({ annotator, note }) => `${annotator || "unnamed"}${note ? `: ${note}` : ""}`);
      const why = record?.verdict === "conflict" ? record.note : each.join("; "); // a disagreement tells who said what
      place.textContent = record ? `${spray.verdicts.symbols[record.verdict].join(" ")} · ${why}` : "";
    });
  },
  paint() {
    this.cases.forEach(({ chunk, subject }, at) => {
      const column = this.columns.children[at];
      const mean = spray.meanOfSubject(chunk, subject);
      const map = column.querySelector(".mean canvas");
      if (mean) spray.tiles.average(map, mean.codes, mean.shape, { size: 168, region: subject.region });
      else spray.tiles.empty(map, { size: 168 });
      spray.paintStrip(column, chunk, { size: this.size, region: subject.region });
    });
  },
});

/** How prediction, correctness and metadata are spread among members and the rest, the largest differences first. */
spray.associations = (chunk, members) => {
  const difference = ([, , here, there]) => Math.abs(here - (Number.isFinite(there) ? there : here));
  const inside = new Set(members);
  const columns = { prediction: Array.from(chunk.prediction, spray.className), ...chunk.metadata };
  if (chunk.label.some((label) => label >= 0)) columns.correct = Array.from(chunk.label, (label, i) => (label < 0 ? "unknown" : label === chunk.prediction[i] ? "right" : "wrong"));
  const rest = chunk.n - inside.size;
  const found = [];
  const leftOut = [];
  const byShare = (one, other) => difference(other) - difference(one);
  for (const [column, told] of Object.entries(columns)) {
    const quarters = column in chunk.metadata ? spray.quarters(told) : null; // of many numbers: the quarter that tells most
    const values = quarters ?? told;
    const counts = new Map();
    values.forEach((value, i) => {
      const count = counts.get(value) ?? [0, 0];
      count[inside.has(i) ? 0 : 1] += 1;
      counts.set(value, count);
    });
    if (counts.size > 50 && !(column in { prediction: 1, correct: 1 })) {
      leftOut.push(column); // nearly one value per sample says nothing
      continue;
    }
    const shares = Array.from(counts, ([value, [here, there]]) => [column, value, here / inside.size, rest ? there / rest : NaN]);
    found.push(...(quarters ? shares.sort(byShare).slice(0, 1) : shares));
  }
  const rows = found.sort(byShare).slice(0, 8).map(([column, value, here, there]) =>
    spray.element(
      "tr",
      {},
      spray.element("td", { class: "faint" }, column),
      spray.element("th", { scope: "row" }, value || "–"),
      spray.element("td", { class: "n" }, spray.percent(here)),
      spray.element("td", { class: "n" }, spray.percent(there)),
      spray.element("td", {}, spray.element("span", { class: "pair" }, spray.element("i", { style: { width: `${100 * here}%` } }), spray.element("i", { class: "rest", style: { width: `${100 * (there || 0)}%` } }))),
    ),
  );
  const head = ["", "value", "here", "rest of class", ""].map((text, at) => spray.element("th", { scope: "col", class: at === 2 || at === 3 ? "n" : null }, text));
  return spray.element("div", { class: "scroll" }, spray.element("table", { class: "associations" }, spray.element("thead", {}, spray.element("tr", {}, head)), spray.element("tbody", {}, rows)), leftOut.length ? spray.element("p", { class: "faint" }, `Left out, more than 50 different words: ${leftOut.map(spray.isolated).join(", ")}.`) : null);
};

/** A column of many numbers as the quarter of the class that each falls in, "≤ 12.5"; null where it is none. */
spray.quarters = (column) => {
  if (!spray.isNumeric(column)) return null;
  const numbers = spray.numbersOf(column);
  const sorted = numbers.filter(Number.isFinite).sort();
  if (new Set(sorted).size <= 12) return null;
  const edges = [0.25, 0.5, 0.75].map((share) => sorted[Math.round(share * (sorted.length - 1))]);
  const [low, middle, high] = edges.map(spray.figure);
  const names = [`≤ ${low}`, `above ${low}, ≤ ${middle}`, `above ${middle}, ≤ ${high}`, `above ${high}`];
  return Array.from(numbers, (value) => (Number.isFinite(value) ? names[edges.filter((edge) => value > edge).length] : "no number"));
};
