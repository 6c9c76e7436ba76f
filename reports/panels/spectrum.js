"use strict";
/* The eigenvalues; the shaded gap is the one that suggests the number of strategies. */
spray.panel({
  name: "spectrum",
  mount(section) {
    this.note = section.querySelector("#spectrum-note");
    this.model = spray.figures.spectrum.model;
    spray.named(section.querySelector(".plot"), "Spectrum: the smallest eigenvalues; in words beside the heading.");
    for (const name of ["eigenvalues", "gap", "cut"]) this[name] = this.model.document.get_model_by_name(name);
  },
  update(state, changed) {
    if (changed.has("theme")) this.paintTheme();
    if (!state.chunk) return;
    if (changed.has("group") || changed.has("theme")) this.draw(state.group);
  },
  draw({ eigenvalues, strategies, eigengap, components }) {
    const values = eigenvalues.slice(0, 30);
    const k = strategies;
    const low = spray.report.palette[0];
    const high = spray.theme.colour("muted");
    this.eigenvalues.data = { k: values.map((_, i) => i + 1), value: values, colour: values.map((_, i) => (i < k ? low : high)) };
    this.model.x_range.start = 0.3;
    this.model.x_range.end = Math.max(2, values.length) + 0.7;
    const top = Math.max(0.05, ...values);
    this.model.y_range.start = 0;
    this.model.y_range.end = 1.1 * top;
    const marked = k < values.length && values.length > 0;
    this.cut.visible = marked;
    this.gap.visible = marked && k > 1;
    this.cut.location = k + 0.5;
    if (this.gap.visible) Object.assign(this.gap, { left: 0.3, right: values.length + 0.7, bottom: values[k - 1], top: values[k] });
    const tested = eigengap.null?.tested_gap; // in the units of the null, where they are others than those of the axis
    const gap = Number.isFinite(tested) ? `relative gap ${spray.decimal(tested)}` : Number.isFinite(eigengap.gap) ? `largest gap ${spray.decimal(eigengap.gap)}` : null;
    const chance = Number.isFinite(eigengap.null?.gap) ? `chance ${spray.decimal(eigengap.null.gap)}` : null;
    const words = [k === 1 ? "one strategy" : `${k} strategies`, gap, chance, components > 1 ? `${components} pieces` : null];
    this.note.textContent = values.length ? words.filter(Boolean).join(" · ") : "nothing to decompose";
  },
  paintTheme() {
    const [ink, line] = ["muted", "line"].map(spray.theme.colour);
    for (const axis of [...this.model.below, ...this.model.left]) {
      Object.assign(axis, { axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: line, major_tick_line_color: line });
    }
    for (const grid of this.model.center) if ("grid_line_color" in grid) grid.grid_line_color = line;
  },
});
