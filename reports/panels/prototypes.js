"use strict";
/* The most central members of each finding or cluster, side by side. */
spray.panel({
  name: "prototypes",
  size: 44,
  each: 6,
  rows: 12,
  mount(section) {
    this.list = section.querySelector("#prototypes");
    this.more = spray.moreBelow(this.list, () => this.list.children);
  },
  update(state, changed) {
    if (!state.chunk) return;
    if (["group", "chunk", "clustering", "theme"].some((name) => changed.has(name))) this.render(state);
    else if (spray.repaints(changed)) this.paint(state);
    if (["subject", "group", "clustering"].some((name) => changed.has(name))) {
      for (const row of this.list.children) row.setAttribute("aria-current", String(row.dataset.key === state.subject?.key));
    }
  },
  render(state) {
    const { group, chunk, clustering } = state;
    const subjects = group.subjects.filter((entry) => entry.clustering === clustering && entry.name !== "noise").slice(0, this.rows);
    spray.repicture(this.list, () => spray.fill(this.list, subjects.map((entry) => this.row(group, chunk, entry))));
    this.paint(state);
    this.more();
  },
  row(group, chunk, entry) {
    const members = Array.from(chunk.members[entry.key].slice(0, this.each));
    const name = spray.element("button", { type: "button", class: entry.flagged ? "flagged" : null, onclick: () => spray.router.go({ group: group.index, subject: entry.key }) }, spray.element("i", { class: "swatch", style: { background: spray.subjectColour(group, entry) } }), entry.name);
    const strip = spray.strip(group, chunk, members, { label: `Prototypes of ${spray.subjectName(entry)}`, subject: entry });
    return spray.element("div", { class: "prototype", "data-key": entry.key }, name, strip);
  },
  paint({ chunk }) {
    for (const row of this.list.children) spray.paintStrip(row, chunk, { size: this.size });
  },
});
