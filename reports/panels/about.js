"use strict";
/* Configuration, digests, conservation, failures. */
spray.panel({
  name: "about",
  mount(section) {
    this.section = section;
  },
  update(state, changed) {
    if (changed.has("analysis")) this.tell();
  },
  tell({ report } = spray) {
    const { section } = this;
    const { conservation: kept, failed } = report.facts;
    const checks = [
      ["conservation", kept ? `median ${spray.percent(kept.share_50)} of the relevance put in arrives at the input (5 % of samples below ${spray.percent(kept.share_5)}, 5 % above ${spray.percent(kept.share_95)}; n = ${spray.count(kept.n)})` : "not recorded"],
      ["failed", failed.rows ? `${spray.count(failed.rows)} of ${spray.count(report.facts.samples)} samples: ${spray.count(failed.samples)} could not be read or predicted, ${spray.count(failed.relevance)} have no relevance` : "no sample"],
      ["store", report.store],
      ["analysis", report.analysis],
      ["written by", report.writer],
    ];
    spray.fill(section.querySelector("#about-checks"), checks.map(([name, text]) => [spray.element("dt", {}, name), spray.element("dd", {}, text)]));
    const entries = Object.entries(report.configuration).map(([name, record], at) => spray.element("details", { open: at === 0 }, spray.element("summary", {}, name), spray.element("pre", {}, JSON.stringify(record, null, 2))));
    spray.fill(section.querySelector("#about-configuration"), entries);
  },
});
