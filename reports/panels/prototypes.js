"use strict";
/* The most central members of each finding or cluster, side by side. */
spray.panel({
  name: "prototypes",
  size: 44,
  each: 6,
  mount(section) {
    this.list = section.querySelector("#prototypes");
    this.list.addEventListener("pointerleave", () => spray.card.hide());
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
    this.subjects = group.subjects.filter((entry) => entry.clustering === clustering && entry.name !== "noise").slice(0, 8);
    spray.fill(this.list, this.subjects.map((entry) => this.row(group, chunk, entry)));
    this.paint(state);
  },
  row(group, chunk, entry) {
    const members = Array.from(chunk.members[entry.key].slice(0, this.each));
    const name = spray.element("button", { type: "button", class: entry.flagged ? "flagged" : null, onclick: () => spray.router.go({ group: group.index, subject: entry.key }) }, spray.element("i", { class: "swatch", style: { background: spray.subjectColour(group, entry) } }), entry.name);
    const canvases = members.map((position) =>
      spray.element("canvas", { "data-position": position, onpointermove: (event) => spray.card.show(position, event.clientX, event.clientY), onpointerleave: () => spray.card.hide() }),
    );
    return spray.element("div", { class: "prototype", "data-key": entry.key }, name, canvases);
  },
  paint({ chunk }) {
    this.subjects?.forEach((entry, at) => {
      for (const canvas of this.list.children[at].querySelectorAll("canvas")) {
        spray.tiles.paint(canvas, chunk, Number(canvas.dataset.position), { size: this.size });
      }
    });
  },
});
