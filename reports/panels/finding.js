"use strict";
/* The case for or against one finding or cluster: where, what in words, and what the interventions measured. */
spray.panel({
  name: "finding",
  mount(section) {
    Object.assign(this, { section, map: section.querySelector("#mean-map"), caption: section.querySelector(".mean figcaption") });
    this.story = section.querySelector(".story");
    const cut = () => {
      const isCut = this.story.scrollHeight - this.story.clientHeight - this.story.scrollTop > 4;
      return () => this.story.classList.toggle("cut", isCut);
    };
    this.cut = () => spray.looking(cut);
    new ResizeObserver(this.cut).observe(this.story);
    this.story.addEventListener("scroll", this.cut, { passive: true });
    for (const part of ["eyebrow", "title", "summary", "notes", "evidence", "more"]) this[part] = section.querySelector(`#case-${part}`);
  },
  update(state, changed) {
    if (!state.chunk) return;
    const content = ["group", "subject", "theme", "origin", "selection", "sample"].some((name) => changed.has(name));
    if (content) this.tell(state);
    if (content) this.cut();
    if (content || spray.repaints(changed) || changed.has("selection")) this.paint(state);
  },
  tell({ group, subject, selection, sample, origin }) {
    const { report } = spray;
    const rank = subject ? report.ranking.indexOf(subject.key) : -1;
    const eyebrow = rank >= 0
      ? [subject.flagged ? spray.element("b", {}, "⚑ Suspicious") : spray.element("span", {}, subject.tested ? "Not flagged" : "Not tested"), ` · rank ${spray.count(rank + 1)} of ${spray.count(report.ranking.length)} findings · suspicion `, spray.element("b", {}, spray.decimal(subject.score))]
      : [spray.element("span", {}, subject ? `${subject.clustering} cluster` : "Class")];
    spray.fill(this.eyebrow, eyebrow);
    this.more.hidden = !subject;
    if (subject) this.more.href = spray.router.address({ page: "cluster", group: group.index, subject: subject.key });
    const byHand = origin === "brush";
    this.section.classList.toggle("flagged", Boolean(subject?.flagged) && !byHand);
    if (byHand) {
      const [count, whole] = [spray.count(selection.length), spray.count(group.n)];
      const about = sample !== null ? "on this sample" : subject ? `still on ${spray.subjectName(subject)}, not on these samples` : "on nothing until a finding is chosen";
      spray.fill(this.eyebrow, spray.element("span", {}, "Selected by hand"));
      spray.fill(this.title, `${count} of ${whole} ${spray.samplesOf(group)} selected by hand`);
      spray.fill(this.summary, `The map is the mean of the selected samples. Nothing was measured on this selection; the verdict is ${about}.`);
      spray.fill(this.evidence);
      spray.fill(this.notes);
      return;
    }
    spray.fill(this.title, spray.caseTitle(group, subject));
    spray.fill(this.summary, spray.caseWords(spray.caseSummary(group, subject), { titled: true }));
    spray.fill(this.evidence, spray.evidence(subject, group));
    spray.fill(this.notes, (subject?.notes ?? []).map((note) => spray.element("li", {}, note)));
  },
  paint({ chunk, subject, selection, origin }) {
    const region = origin === "subject" ? (subject?.region ?? null) : null;
    const mean = origin === "subject" ? spray.meanOfSubject(chunk, subject) : spray.tiles.meanOf(chunk, selection);
    if (mean) spray.tiles.average(this.map, mean.codes, mean.shape, { region });
    else spray.tiles.empty(this.map);
    const { relevance } = spray.state; // another one may be shown on the samples
    const of = origin === "brush" ? `mean of ${spray.count(selection.length)} selected` : relevance ? `mean of ${spray.report.relevance}` : "mean relevance";
    this.caption.textContent = mean || !selection.length ? of : origin === "subject" ? "no map by place" : `${of}: on its way…`;
    this.map.setAttribute("aria-label", `Mean relevance of ${subject && origin === "subject" ? subject.name : "the selection"}${region ? ", its shared region outlined" : ""}`);
  },
});

/** The mean map of a finding or cluster, as {codes, shape}. */
spray.meanOfSubject = (chunk, subject) => {
  if (subject?.mean_map) return { codes: spray.bytesOf(subject.mean_map), shape: subject.mean_map.shape };
  const mean = subject && chunk ? chunk.means[subject.key] : null;
  return mean ? { codes: mean, shape: mean.shape } : null;
};

spray.bytesOf = (packed) => {
  packed.values ??= new Int8Array(spray.bytes(packed.data).buffer);
  return packed.values;
};

spray.subjectName = (subject) => (subject.kind === "finding" ? subject.name : subject.name === "noise" ? "noise" : `cluster ${subject.name}`);

/** Samples of one class, or of all at once. */
spray.samplesOf = (group) => (group.index < 0 ? `samples of ${group.name}` : `“${group.name}” samples`);

spray.caseTitle = (group, subject) => {
  if (!subject) return group.status === "ok" ? `${group.name}: nothing selected` : `${group.name}: ${spray.classNote(group)}`;
  const share = `${spray.count(subject.n)} of ${spray.count(group.n)}`;
  if (subject.kind === "finding") return `${share} ${spray.samplesOf(group)} share ${subject.region ? "one region" : "one strategy"}`;
  return `${group.name}, ${spray.subjectName(subject)}: ${share} samples`;
};

/** A summary as a reader wants it: what follows from it first, then the measurements; without the count that a title
    above it (``titled``) has told. */
spray.caseWords = (summary, { titled = false } = {}) => {
  const [, measured, follows] = /^(.*?[.;])\s+((?:Confirmed|Not confirmed|Not shown)\b(?!.*\b(?:Confirmed|Not confirmed|Not shown)\b).*)$/s.exec(summary) ?? [null, summary, null];
  const rest = titled ? measured.replace(/^[\d,]+ of [\d,]+ (?:'.*?' samples|samples of all classes)\.\s+/s, "") : measured;
  return follows ? [spray.element("b", { class: "follows" }, follows), " ", rest] : [rest];
};

spray.caseSummary = (group, subject) => {
  if (!subject) return "No cluster stands apart here.";
  if (subject.summary) return subject.summary;
  return `Accuracy ${spray.percent(subject.accuracy)}, mean confidence ${spray.percent(subject.confidence)}. A cluster alone is no suspicion: findings merge clusters that share a region and carry the evidence.`;
};
