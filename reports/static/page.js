"use strict";
/* The frame: header controls, theme, hover card, start. Runs last. */
spray.panel({
  name: "frame",
  mount() {
    const { report, state } = spray;
    const views = [["image", "Image"], ["heatmap", "Heatmap"], ["overlay", "Overlay"]];
    document.getElementById("view").append(spray.segments("Show samples as", views, state.view, (view) => spray.set({ view })));
    const map = document.getElementById("map");
    spray.options(map, Object.entries(report.maps).map(([name, entry]) => [name, entry.title]), state.map);
    map.addEventListener("change", () => spray.set({ map: map.value }));
    const opacity = document.getElementById("opacity");
    opacity.addEventListener("input", () => spray.set({ opacity: Number(opacity.value) / 100 }));
    const scaling = document.getElementById("scaling");
    scaling.addEventListener("change", () => spray.set({ scaling: scaling.value }));
    document.getElementById("theme").addEventListener("click", () => spray.theme.toggle());
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address is the router's
      document.getElementById("content").focus();
    });
    for (const button of document.querySelectorAll("#pages a")) {
      button.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab or window of its own
        event.preventDefault();
        const { page } = button.dataset;
        spray.router.go(page === "class" ? { group: (state.group ?? report.groups[0])?.index, subject: state.subject?.key } : { page });
      });
    }
  },
  update(state, changed) {
    if (changed.has("page")) {
      for (const page of document.querySelectorAll("main > .page")) {
        page.hidden = page.id !== `page-${state.page}`;
        page.scrollTop = 0;
      }
      window.scrollTo(0, 0);
      for (const link of document.querySelectorAll("#pages a")) {
        if (link.dataset.page === (state.page === "cluster" ? "class" : state.page)) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      }
      const display = document.getElementById("display").classList;
      display.toggle("idle", state.page === "about");
      display.toggle("maps-only", ["overview", "summary"].includes(state.page)); // mean maps have a colour map and no more
    }
    if (["page", "group", "subject", "other", "analysis"].some((name) => changed.has(name))) document.title = spray.pageTitle(state);
    if (changed.has("analysis")) {
      const facts = document.getElementById("facts");
      facts.textContent = facts.title = spray.factLine(); // the title has what a narrow window cuts
    }
    if (changed.has("view")) spray.choose(document.getElementById("view"), state.view);
    if (changed.has("map") || changed.has("theme")) spray.tiles.bar(document.getElementById("bar"));
  },
});

spray.theme = (() => {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const kept = "spray:theme";
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const known = new Map(); // colours by name: to ask the page for one makes it work out all its styles
  const tell = () => {
    known.clear();
    spray.set({ theme: isDark() ? "dark" : "light" });
  };
  function choose(name) {
    root.dataset.theme = name;
    try {
      localStorage.setItem(kept, name);
    } catch {
      /* a browser that keeps nothing still changes its colours */
    }
    tell();
  }
  try {
    const name = localStorage.getItem(kept);
    if (name === "light" || name === "dark") root.dataset.theme = name;
  } catch {
    /* nothing was kept */
  }
  dark.addEventListener("change", tell);
  /** The colour of a theme variable, for canvases. */
  const colour = (name) => {
    if (!known.has(name)) known.set(name, getComputedStyle(root).getPropertyValue(`--${name}`).trim());
    return known.get(name);
  };
  return { toggle: () => choose(isDark() ? "light" : "dark"), tell, colour };
})();

/** What the window is called: where one is, then the report. */
spray.pageTitle = ({ page, group, subject, other }) => {
  const { title } = spray.report;
  if (!page) return title;
  if (page !== "class" && page !== "cluster") return `${page[0].toUpperCase()}${page.slice(1)} · ${title}`;
  const about = [subject, other].filter((entry, at) => entry && (at === 0 || page === "cluster")).map(spray.subjectName);
  return [group ? [group.name, ...(about.length ? [about.join(" and ")] : [])].join(", ") : null, title].filter(Boolean).join(" · ");
};

/** The card beside the pointer: image, heatmap and overlay of one sample. */
spray.card = (() => {
  const card = document.getElementById("hover");
  const text = card.querySelector("figcaption");
  const size = 116;

  function show(position, x, y, chunk = spray.state.chunk, subject = spray.state.subject) {
    card.hidden = false;
    const region = subject && chunk.members[subject.key]?.includes(position) ? subject.region : null; // others do not share it
    for (const canvas of card.querySelectorAll("canvas")) {
      spray.tiles.paint(canvas, chunk, position, { view: canvas.dataset.view, size, region: canvas.dataset.view === "image" ? null : region });
    }
    const [, column] = spray.state.colour.match(/^meta\.(.*)$/s) ?? []; // dots coloured by a column: what it says here
    const value = column === undefined ? undefined : chunk.metadata[column]?.[position];
    const lines = [...spray.caption(chunk, position), ...(value === undefined ? [] : [`${spray.isolated(column)}: ${spray.isolated(value) || "–"}`])];
    spray.fill(text, lines.map((line) => spray.element("div", {}, line)));
    const box = card.getBoundingClientRect();
    const left = x + 18 + box.width > innerWidth ? x - 18 - box.width : x + 18;
    const top = Math.max(8, Math.min(innerHeight - box.height - 8, y - box.height / 2));
    card.style.transform = `translate(${Math.max(8, left)}px, ${top}px)`;
  }
  /** The card beside an element that the keyboard reached. */
  function beside(element, position, ...of) {
    const box = element.getBoundingClientRect();
    show(position, box.right - 18, box.top + box.height / 2, ...of);
  }
  return { show, beside, hide: () => (card.hidden = true) };
})();

/** Tell a screen reader what Bokeh's parts of a figure are: its canvas, and its tools, which are buttons that stay down. */
spray.named = (place, label) => {
  const every = (root, found = []) => {
    for (const one of root.querySelectorAll("*")) {
      found.push(one);
      if (one.shadowRoot) every(one.shadowRoot, found);
    }
    return found;
  };
  const parts = every(place);
  for (const canvas of parts.filter((one) => one.classList.contains("bk-events"))) {
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
  }
  for (const tool of parts.filter((one) => one.tabIndex === 0 && one.title)) {
    tool.setAttribute("role", "button");
    tool.setAttribute("aria-label", tool.title);
    if (!tool.classList.contains("bk-OnOffButton")) continue; // it does something once
    const tell = () => tool.setAttribute("aria-pressed", String(tool.classList.contains("bk-active")));
    tell();
    new MutationObserver(tell).observe(tool, { attributeFilter: ["class"] });
  }
};

/** Let a picture of a sample show its card to the pointer, to the focus of the keyboard, and to a finger that stays. */
spray.carded = (button, position, ...of) => {
  const show = (event) => spray.card.show(position, event.clientX, event.clientY, ...of);
  button.addEventListener("focus", () => button.matches(":focus-visible") && spray.card.beside(button, position, ...of));
  button.addEventListener("blur", () => spray.card.hide());
  button.addEventListener("pointermove", (event) => event.pointerType !== "touch" && show(event));
  button.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && spray.card.hide());
  return spray.pressed(button, show);
};

/** What a finger that stays for a moment opens; the click and the menu that the browser makes of it are left out. */
spray.pressed = (place, open) => {
  let down = null;
  let opened = false;
  const end = () => {
    clearTimeout(down?.timer);
    down = null;
  };
  place.addEventListener("pointerdown", (event) => {
    end();
    opened = false;
    if (event.pointerType !== "touch" || !event.isPrimary) return;
    const timer = setTimeout(() => {
      opened = true;
      open(event);
    }, 450);
    down = { x: event.clientX, y: event.clientY, timer };
  });
  place.addEventListener("pointermove", (event) => down && Math.hypot(event.clientX - down.x, event.clientY - down.y) > 10 && end());
  for (const name of ["pointerup", "pointercancel"]) place.addEventListener(name, end);
  place.addEventListener("contextmenu", (event) => (down || opened) && event.preventDefault());
  place.addEventListener("click", (event) => opened && event.stopImmediatePropagation(), true);
  return place;
};
// A card that a finger has opened stays until the next touch.
document.addEventListener("pointerdown", (event) => event.pointerType === "touch" && spray.card.hide(), true);

/** A sample in words: [id, "label → prediction (confidence)"]. */
spray.caption = (chunk, position) => {
  const label = spray.className(chunk.label[position]);
  const prediction = spray.className(chunk.prediction[position]);
  return [spray.isolated(chunk.ids[position]), `${label} → ${prediction} (${spray.percent(chunk.confidence[position])})`];
};

spray.start = async () => {
  spray.figures = {};
  for (const item of spray.report.figures) {
    const views = await Bokeh.embed.embed_item(item);
    spray.figures[item.name] = views.roots[0];
  }
  spray.mount();
  spray.theme.tell();
  if (spray.verdicts.served) {
    const tell = (problem) => problem && spray.trouble(problem);
    await spray.verdicts.refresh().then(tell).catch((error) => spray.trouble(`The verdicts of the store cannot be read: ${error.message}`));
    const silent = "The server does not answer: what others say meanwhile is shown once it does.";
    let misses = 0;
    const heard = (problem) => {
      if (misses > 1 && document.getElementById("trouble").textContent.startsWith(silent)) spray.trouble(null);
      misses = 0;
      tell(problem);
    };
    const missed = () => (misses += 1) === 2 && spray.trouble(silent); // one may be lost on the way
    setInterval(() => document.hidden || spray.verdicts.refresh().then(heard, missed), 5000);
  }
  await spray.router.follow();
  requestAnimationFrame(() => requestAnimationFrame(() => {
    spray.ready = true;
    spray.readyAt = performance.now(); // milliseconds since the page was asked for
    document.body.classList.add("ready");
  }));
};
