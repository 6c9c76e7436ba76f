"use strict";
/* The case for or against one finding or cluster: where, what in words, and what the interventions measured. */
spray.panel({
  name: "finding",
  mount(section) {
    Object.assign(this, { section, map: section.querySelector("#mean-map") });
    for (const part of ["eyebrow", "title", "summary", "notes", "evidence", "more"]) this[part] = section.querySelector(`#case-${part}`);
  },
  update(state, changed) {
    if (!state.chunk) return;
    const content = ["group", "subject", "theme"].some((name) => changed.has(name));
    if (content) this.tell(state);
    if (content || spray.repaints(changed) || changed.has("selection")) this.paint(state);
  },
  tell({ group, subject }) {
    const { report } = spray;
    this.section.classList.toggle("flagged", Boolean(subject?.flagged));
    const rank = subject ? report.ranking.indexOf(subject.key) : -1;
    const eyebrow = rank >= 0
      ? [subject.flagged ? spray.element("b", {}, "⚑ Suspicious") : spray.element("span", {}, "Not flagged"), ` · rank ${rank + 1} of ${report.ranking.length} findings · suspicion `, spray.element("b", {}, spray.decimal(subject.score))]
      : [spray.element("span", {}, subject ? `${subject.clustering} cluster` : "Class")];
    spray.fill(this.eyebrow, eyebrow);
    this.more.hidden = !subject;
    if (subject) this.more.href = spray.router.address({ page: "cluster", group: group.index, subject: subject.key });
    spray.fill(this.title, spray.caseTitle(group, subject));
    spray.fill(this.summary, spray.caseSummary(group, subject));
    spray.fill(this.evidence, spray.evidence(subject, group.name));
    spray.fill(this.notes, (subject?.notes ?? []).map((note) => spray.element("li", {}, note)));
  },
  paint({ chunk, subject, selection, origin }) {
    const region = origin === "subject" ? (subject?.region ?? null) : null;
    const mean = origin === "subject" ? spray.meanOfSubject(chunk, subject) : spray.tiles.meanOf(chunk, selection);
    if (mean) spray.tiles.average(this.map, mean.codes, mean.shape, { region });
    this.map.setAttribute("aria-label", `Mean relevance of ${subject ? subject.name : "the selection"}${region ? ", its shared region outlined" : ""}`);
  },
});

/** The mean map of a finding or cluster, as {codes, shape}. */
spray.meanOfSubject = (chunk, subject) => {
  if (subject?.mean_map) return { codes: spray.bytesOf(subject.mean_map), shape: subject.mean_map.shape };
  const mean = subject ? chunk.means[subject.key] : null;
  return mean ? { codes: mean, shape: mean.shape } : null;
};

spray.bytesOf = (packed) => {
  packed.values ??= new Int8Array(spray.bytes(packed.data).buffer);
  return packed.values;
};

spray.subjectName = (subject) => (subject.kind === "finding" ? subject.name : subject.name === "noise" ? "noise" : `cluster ${subject.name}`);

spray.caseTitle = (group, subject) => {
  if (!subject) return group.status === "ok" ? `${group.name}: nothing selected` : `${group.name}: ${spray.classNote(group)}`;
  const share = `${spray.count(subject.n)} of ${spray.count(group.n)}`;
  if (subject.kind === "finding") return `${share} “${group.name}” samples share ${subject.region ? "one region" : "one strategy"}`;
  return `${group.name}, ${spray.subjectName(subject)}: ${share} samples`;
};

spray.caseSummary = (group, subject) => {
  if (!subject) return "No cluster stands apart here.";
  if (subject.summary) return subject.summary;
  return `Accuracy ${spray.percent(subject.accuracy)}, mean confidence ${spray.percent(subject.confidence)}. A cluster alone is no suspicion: findings merge clusters that share a region and carry the evidence.`;
};

/** What was measured: each intervention's effect beside its controls, then the parts of the score as bars. */
spray.evidence = (subject, className) => {
  if (!subject || subject.kind !== "finding") return [];
  const { removal, transplant, flip_rate: flips } = subject.evidence ?? {};
  const turned = Number.isFinite(flips) ? `: ${spray.percent(flips)} become “${className}”` : "";
  const rows = [spray.effect("region removed", removal, -1), spray.effect(`pasted elsewhere${turned}`, transplant, 1)];
  const parts = Object.entries(subject.parts ?? {}).map(([name, value]) => spray.part(name, value));
  return [...rows, parts.length ? spray.element("dl", { class: "parts", "aria-label": "Parts of the suspicion" }, parts) : null];
};

/** One part of the score; bars end at 1, numbers do not. */
spray.part = (name, value) => {
  const measured = Number.isFinite(value);
  const width = `${100 * Math.max(0, Math.min(1, measured ? value : 0))}%`;
  const said = measured ? spray.decimal(value) : "–";
  return spray.element(
    "div",
    { title: measured ? `${spray.words(name)}: ${value}` : `${spray.words(name)}: not measured` },
    spray.element("dt", {}, spray.words(name)),
    spray.element("dd", {}, spray.element("span", { class: "meter" }, spray.element("i", { style: { width } })), spray.element("span", { class: "number" }, said)),
  );
};

/** Mean effect on the class's probability as a bar, its controls as ticks on the same scale from 0 to 1; figures in the tooltip. */
spray.effect = (title, entry, sign) => {
  const mean = entry?.mean ?? entry?.effect;
  if (!Number.isFinite(mean)) return null;
  const controls = entry.controls ?? (Number.isFinite(entry.control) ? { control: entry.control } : {});
  const images = entry.images ?? entry.n;
  const interval = entry.net_interval ?? entry.interval;
  const place = (value) => `${100 * Math.max(0, Math.min(1, value))}%`;
  const signed = (value) => `${sign * value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
  const range = Array.isArray(interval) ? `net ${signed(entry.net ?? mean)}, 95 % between ${interval.map(signed).join(" and ")}` : "";
  const ticks = Object.entries(controls).filter(([, value]) => Number.isFinite(value));
  const told = ticks.map(([name, value]) => `${name} ${signed(value)}`).join(", ");
  const said = `${title}: class probability ${signed(mean)}; controls: ${told || "none"}${range ? `; ${range}` : ""}; ${images} images`;
  return spray.element(
    "div",
    { class: "effect", title: said },
    spray.element("div", { class: "said" }, spray.element("span", {}, title), spray.element("b", {}, `P ${signed(mean)}`)),
    spray.element(
      "div",
      { class: "track", role: "img", "aria-label": said },
      spray.element("i", { class: "span", style: { width: place(mean) } }),
      ticks.map(([, value]) => spray.element("i", { class: "control", style: { left: place(value) } })),
    ),
  );
};
