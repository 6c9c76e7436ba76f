"use strict";
/* The classes, ranked by the suspicion of their top finding. */
spray.panel({
  name: "classes",
  mount(section) {
    this.look = this.look.bind(this); // asked for twice in a frame it is the same
    this.list = section.querySelector("#class-list");
    this.more = spray.moreBelow(this.list, () => this.list.children);
    this.analysis = section.querySelector("#analysis");
    this.analysis.addEventListener("change", () => spray.router.go({ group: spray.state.group?.index, analysis: this.analysis.value }));
  },
  /** Bring the class that is shown into sight, where it is not. */
  look() {
    const [list, button] = [this.list, this.shown].map((one) => one.getBoundingClientRect());
    return button.top < list.top || button.bottom > list.bottom ? () => this.shown.scrollIntoView({ block: "nearest" }) : null;
  },
  offer({ analyses, groups, analysis }) {
    this.analysis.hidden = analyses.length < 2;
    const shared = spray.sharedParts(analyses.map((entry) => entry.name.split(" · ")));
    const told = ({ name }) => name.split(" · ").slice(shared).join(" · ") || name;
    spray.options(this.analysis, analyses.map((entry) => [entry.analysis, told(entry)]), analysis);
    this.analysis.title = analyses.find((entry) => entry.analysis === analysis)?.name ?? "";
    this.buttons = groups.map((group, rank) =>
      spray.element(
        "button",
        { type: "button", class: group.flagged ? "class flagged" : "class", "data-class": group.index, onclick: () => spray.router.go({ group: group.index }) },
        spray.element("span", { class: "rank" }, String(rank + 1)),
        spray.element("span", { class: "name", title: group.name }, group.name),
        spray.element("span", { class: "score", title: "suspicion of its top finding" }, spray.decimal(group.suspicion)),
        spray.meter(group.suspicion),
        spray.element("span", { class: "note" }, spray.classNote(group)),
      ),
    );
    spray.refill(this.list, () => spray.fill(this.list, this.buttons));
    this.more();
  },
  update(state, changed) {
    if (changed.has("analysis")) this.offer(spray.report);
    if (!state.group || !(changed.has("group") || changed.has("analysis"))) return;
    for (const button of this.buttons) {
      const on = button.dataset.class === String(state.group.index);
      button.setAttribute("aria-current", String(on));
      if (on) this.shown = button;
    }
    spray.looking(this.look);
  },
});

/** How many parts all of several names begin with: what tells them apart comes after. */
spray.sharedParts = (names) => {
  const most = Math.min(...names.map((parts) => parts.length));
  let shared = 0;
  while (shared < most && names.every((parts) => parts[shared] === names[0][shared])) shared += 1;
  return shared;
};

/** A class in a few words: flagged findings, else what there is to see, and its size. */
spray.classNote = (group) => {
  const size = spray.count(group.n);
  if (group.flagged) return `⚑ ${group.flagged} flagged · ${size}`;
  if (group.status !== "ok") return `${{ empty: "no samples", single: "one sample", identical: "all maps equal" }[group.status] ?? group.status} · ${size}`;
  return `${group.strategies === 1 ? "one strategy" : `${group.strategies} strategies`} · ${size}`;
};
