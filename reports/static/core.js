"use strict";
/* One state, changed only through spray.set(); panels hear which names changed. Text of strangers (labels, ids,
   metadata, notes) reaches the page through textContent and setAttribute("title") only. */
const spray = (() => {
  const report = JSON.parse(document.getElementById("report").textContent);
  Object.assign(report, report.analyses[0]); // the analysis that is shown; see spray.analyse
  const panels = [];
  const problems = [];
  const state = {
    page: null, // overview, class, summary, about
    analysis: null, // id of the analysis that is shown
    group: null, // entry of report.groups
    chunk: null, // its samples, once decoded
    clustering: "findings",
    subject: null, // entry of group.subjects
    other: null, // the subject it is compared with
    otherGroup: null, // its class, which may be another
    otherChunk: null,
    selection: new Uint32Array(0), // positions in the chunk
    origin: "none", // where the selection came from: subject, brush, sample
    sample: null, // position of the sample that is looked at
    picture: null,
    colour: "findings",
    relevance: null, // name of another relevance than that of the analysis, whose heatmaps are shown
    view: "overlay",
    map: "bwr",
    opacity: 0.9,
    scaling: "sample",
    outline: true,
    theme: "auto",
    sort: "central",
    keep: "all",
    verdicts: 0, // counts up with every change of the verdicts
    arrived: 0, // counts up with every page of pictures that comes in
  };

  const queue = [];
  let busy = false;

  /** Change the state; every panel's update() runs once per call, with the names that really changed. */
  function set(changes) {
    queue.push(changes);
    if (busy) return;
    busy = true;
    try {
      while (queue.length) {
        const next = queue.shift();
        const changed = new Set(Object.keys(next).filter((name) => state[name] !== next[name]));
        if (!changed.size) continue;
        Object.assign(state, next);
        for (const panel of panels) panel.update(state, changed);
      }
    } finally {
      busy = false;
    }
  }

  /** Register {name, mount(section), update(state, changed)}. */
  function panel(entry) {
    panels.push({ mount() {}, update() {}, ...entry });
  }

  function mount() {
    for (const entry of panels) entry.mount(document.getElementById(`panel-${entry.name}`));
  }

  // That sizes changed once more than one frame takes is no error: the rest is told in the next frame.
  const late = "ResizeObserver loop";
  window.addEventListener("error", (event) => String(event.message).startsWith(late) || problems.push(String(event.message)));
  window.addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
  document.addEventListener("securitypolicyviolation", (event) => problems.push(`blocked: ${event.violatedDirective}`));
  /** Show another analysis of the store: its classes and findings take the place of the present ones. */
  function analyse(id) {
    const found = report.analyses.find((entry) => entry.analysis === id);
    if (found) Object.assign(report, found);
    set({ analysis: report.analysis });
  }

  return { report, state, set, panel, mount, analyse, problems, ready: false };
})();

/** An element with attributes, listeners ("on…": function) and children; strings become text, never markup. */
spray.element = (tag, attributes = {}, ...children) => {
  const made = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, entry] of Object.entries(value)) made.style.setProperty(key, entry);
    else made.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) made.append(child);
  }
  return made;
};

spray.fill = (parent, ...children) => {
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
};

spray.count = (value) => value.toLocaleString("en-US");
spray.percent = (value) => (value === null || !Number.isFinite(value) ? "–" : `${Math.round(100 * value)} %`);
spray.decimal = (value, digits = 2) => {
  if (value === null || !Number.isFinite(value)) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text.replace("-", "−");
};
spray.words = (name) => name.replaceAll("_", " ");
spray.className = (index) => (index < 0 ? "unknown" : (spray.report.classes[index] ?? String(index)));

/** One of several: a segmented control that is a radio group for keyboard and screen reader. Arrow keys choose; where a
    choice is more than a view (``deliberate``), they only move, and Space or Enter chooses. */
spray.segments = (label, options, chosen, choose, { deliberate = false } = {}) => {
  const buttons = options.map(([value, text, hint]) =>
    spray.element(
      "button",
      {
        type: "button",
        role: "radio",
        "aria-checked": String(value === chosen),
        tabindex: value === chosen ? "0" : "-1",
        "data-value": value,
        title: hint ?? null,
        onclick: () => choose(value),
      },
      text,
    ),
  );
  return spray.element(
    "div",
    {
      class: "segments",
      role: "radiogroup",
      "aria-label": label,
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const at = buttons.findIndex((button) => button === document.activeElement);
        const next = buttons[(at + step + buttons.length) % buttons.length];
        next.focus();
        if (!deliberate) next.click();
      },
    },
    buttons,
  );
};

spray.choose = (group, value) => {
  for (const button of group.querySelectorAll("[role=radio]")) {
    const on = button.dataset.value === value;
    button.setAttribute("aria-checked", String(on));
    button.tabIndex = on ? 0 : -1;
  }
};

/** A drop-down of [value, text] pairs. */
spray.options = (select, pairs, chosen) => {
  spray.fill(
    select,
    pairs.map(([value, text]) => spray.element("option", { value, selected: value === chosen }, text)),
  );
};

/** Tell the reader what went wrong, or that nothing does any more. */
spray.trouble = (text) => {
  const place = document.getElementById("trouble");
  place.hidden = text === null;
  place.textContent = text ?? "";
  if (text !== null) place.append(spray.element("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => spray.trouble(null) }, "×"));
};

/** Offer a file for saving. */
spray.save = (name, content, type) => {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = spray.element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
};
