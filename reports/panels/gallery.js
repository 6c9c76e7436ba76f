"use strict";
/* The selection as pictures, page by page. */
spray.panel({
  name: "gallery",
  tile: 84,
  page: 0,
  mount(section) {
    for (const part of ["count", "back", "keep", "sort", "previous", "next", "page"]) this[`$${part}`] = section.querySelector(`#gallery-${part}`);
    this.tiles = section.querySelector("#gallery");
    spray.options(this.$sort, [["central", "most central first"], ["outer", "least central first"], ["sure", "most confident first"], ["unsure", "least confident first"], ["row", "in store order"]], "central");
    this.$sort.addEventListener("change", () => spray.set({ sort: this.$sort.value }));
    spray.options(this.$keep, [["all", "all"], ["right", "right ones"], ["wrong", "wrong ones"]], "all");
    this.$keep.addEventListener("change", () => spray.set({ keep: this.$keep.value }));
    this.$previous.addEventListener("click", () => this.turn(-1));
    this.$next.addEventListener("click", () => this.turn(1));
    this.$back.addEventListener("click", () => spray.set({ selection: spray.state.chunk.members[spray.state.subject.key], origin: "subject", sample: null }));
    this.tiles.addEventListener("pointerleave", () => spray.card.hide());
    new ResizeObserver(() => this.chunk && this.render(spray.state)).observe(this.tiles);
  },
  update(state, changed) {
    if (!state.chunk) return;
    this.chunk = state.chunk;
    if (["selection", "chunk", "sort", "keep", "verdicts"].some((name) => changed.has(name))) {
      this.order = spray.ordered(state);
      if (!changed.has("verdicts")) this.page = 0;
      this.render(state);
    } else if (spray.repaints(changed) || changed.has("subject")) this.paint(state);
    if (changed.has("sample")) this.mark(state);
  },
  /** How many tiles fit: whole rows of whole tiles. */
  capacity() {
    const across = Math.max(1, Math.floor((this.tiles.clientWidth + 8) / (this.tile + 8)));
    const down = Math.max(1, Math.floor((this.tiles.clientHeight + 8) / (this.tile + 30)));
    return innerWidth < 760 ? 12 : across * down;
  },
  turn(step) {
    this.page += step;
    this.render(spray.state);
  },
  render(state) {
    const { chunk, selection, subject, origin } = state;
    const each = this.capacity();
    const pages = Math.max(1, Math.ceil(this.order.length / each));
    this.page = Math.max(0, Math.min(pages - 1, this.page));
    const shown = Array.from(this.order.slice(this.page * each, (this.page + 1) * each));
    const from = origin === "brush" ? "selected by hand" : origin === "subject" && subject ? `of ${spray.subjectName(subject)}` : "";
    const kept = this.order.length === selection.length ? "" : `${spray.count(this.order.length)} kept of `;
    this.$count.textContent = selection.length ? `${kept}${spray.count(selection.length)} ${from}` : "nothing selected";
    this.$page.textContent = `${this.page + 1} / ${spray.count(pages)}`;
    this.$previous.disabled = this.page === 0;
    this.$next.disabled = this.page === pages - 1;
    this.$back.hidden = origin !== "brush" || !subject;
    if (subject) this.$back.textContent = `back to ${spray.subjectName(subject)}`;
    spray.fill(this.tiles, shown.map((position) => this.make(chunk, position)), shown.length ? null : spray.element("p", { class: "empty" }, "Draw a lasso around some dots, or choose a finding."));
    this.paint(state);
    this.mark(state);
  },
  make(chunk, position) {
    const [id, words] = spray.caption(chunk, position);
    const known = chunk.label[position] >= 0;
    const right = chunk.label[position] === chunk.prediction[position];
    const record = spray.verdicts.ofSample(id);
    const verdict = () => `${record ? `${spray.verdicts.symbols[record.verdict][0]} ` : ""}${known && !right ? "✗ " : ""}`;
    return spray.element(
      "button",
      {
        type: "button",
        class: "tile",
        "data-position": position,
        title: `${id}\n${words}`,
        onclick: () => spray.set({ sample: spray.state.sample === position ? null : position }),
        onpointermove: (event) => spray.card.show(position, event.clientX, event.clientY),
        onpointerleave: () => spray.card.hide(),
      },
      spray.element("canvas", { "aria-hidden": "true" }),
      spray.element("span", { class: right || !known ? null : "wrong" }, `${verdict()}${right ? "" : `${spray.className(chunk.prediction[position])} `}${spray.percent(chunk.confidence[position])}`),
    );
  },
  paint({ chunk, subject, origin }) {
    const region = origin === "subject" ? subject?.region : null;
    for (const tile of this.tiles.querySelectorAll(".tile")) {
      spray.tiles.paint(tile.firstChild, chunk, Number(tile.dataset.position), { size: this.tile, region });
    }
  },
  mark({ sample }) {
    for (const tile of this.tiles.querySelectorAll(".tile")) tile.setAttribute("aria-pressed", String(Number(tile.dataset.position) === sample));
  },
});

/** The selection, filtered and sorted. Members of a subject come most central first from the store. */
spray.ordered = ({ chunk, selection, sort, keep }) => {
  const right = (i) => chunk.label[i] === chunk.prediction[i];
  const kept = Array.from(selection).filter((i) => keep === "all" || (chunk.label[i] >= 0 && right(i) === (keep === "right")));
  const by = {
    central: null,
    outer: () => kept.reverse(),
    sure: () => kept.sort((a, b) => chunk.confidence[b] - chunk.confidence[a]),
    unsure: () => kept.sort((a, b) => chunk.confidence[a] - chunk.confidence[b]),
    row: () => kept.sort((a, b) => a - b),
  }[sort];
  by?.();
  return kept;
};
