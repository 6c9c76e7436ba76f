"use strict";
/* Rows of small pictures that pointer and keyboard reach, signs of what lies below an edge, and focus that stays. */

/** Small pictures of samples in a row: each shows its card on hover and focus, and opens its sample. One stop of the Tab
    key for the whole row; arrow keys move within it. Painted by spray.paintStrip. */
spray.strip = (group, chunk, positions, { label, subject = null, ...attributes }) => {
  const glimpse = (position, at) => {
    const button = spray.element(
      "button",
      {
        type: "button",
        class: "glimpse",
        tabindex: at ? "-1" : "0",
        "data-position": position,
        "aria-label": `${spray.caption(chunk, position).join(", ")}`,
        onclick: () => {
          spray.card.hide();
          spray.router.go({ group: group.index, subject: subject?.key, sample: chunk.rows[position] });
        },
      },
      spray.canvas(),
    );
    return spray.carded(button, position, chunk, subject);
  };
  const buttons = Array.from(positions, glimpse);
  const onkeydown = (event) => spray.moveAmong(buttons, event);
  return spray.element("div", { class: "strip", role: "group", "aria-label": label, onkeydown, ...attributes }, buttons);
};

/** A canvas for a small picture: one that is let go where there is any, since a new one costs more than to paint it. */
spray.canvas = () => spray.canvas.free.pop() ?? spray.element("canvas", { "aria-hidden": "true" });
spray.canvas.free = [];

/** Put pictures anew into a place, on the canvases of those that were there. */
spray.repicture = (place, render) => {
  spray.canvas.free = [...place.querySelectorAll("button > canvas")].reverse();
  spray.refill(place, render);
  spray.canvas.free = [];
};

/** Let arrow keys, Home and End move among pictures of which one is a stop of the Tab key; up and down where they
    stand in several rows. */
spray.moveAmong = (buttons, event) => {
  const from = buttons.indexOf(document.activeElement);
  if (from < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
  const rows = buttons.findIndex((button) => button.offsetTop > buttons[0].offsetTop);
  const below = rows < 0 ? {} : { ArrowDown: from + rows, ArrowUp: from - rows };
  const to = { ArrowRight: from + 1, ArrowLeft: from - 1, Home: 0, End: buttons.length - 1, ...below }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  spray.stopAt(buttons, buttons[Math.max(0, Math.min(buttons.length - 1, to))]).focus();
};

/** Make one of several buttons their stop of the Tab key. */
spray.stopAt = (buttons, stop) => {
  for (const button of buttons) button.tabIndex = button === stop ? 0 : -1;
  return stop;
};

spray.paintStrip = (strip, chunk, { size, region = null }) => {
  for (const button of strip.querySelectorAll(".glimpse")) {
    spray.tiles.paint(button.firstChild, chunk, Number(button.dataset.position), { size, region });
  }
};

/** Look at the page once in the next frame, after all that others change before it: every ``look`` reads the layout and
    gives what is then to be changed, or nothing. All read first, so that the page is laid out once for all of them. */
spray.looking = (() => {
  const looks = new Set();
  function run() {
    const waiting = [...looks];
    looks.clear();
    for (const change of waiting.map((look) => look())) change?.();
  }
  return (look) => {
    if (!looks.size) requestAnimationFrame(run);
    looks.add(look);
  };
})();

/** Say below a list that scrolls how many of its entries lie beneath the edge; a click brings them up. */
spray.moreBelow = (scroller, entries) => {
  const sign = spray.element("button", { type: "button", class: "more-below", tabindex: "-1", hidden: true, onclick: () => scroller.scrollBy({ top: Math.max(40, scroller.clientHeight - 60) }) });
  scroller.after(sign);
  function look() {
    const own = sign.hidden ? 0 : sign.offsetHeight; // what fits without the sign needs none
    const edge = scroller.getBoundingClientRect().bottom;
    const cut = scroller.scrollHeight - scroller.clientHeight - own > 4 && scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop > 4;
    const hidden = cut ? Array.from(entries()).filter((entry) => entry.getBoundingClientRect().bottom > edge + 4).length : 0;
    return () => {
      sign.hidden = hidden === 0;
      sign.textContent = `↓ ${spray.count(hidden)} more`;
    };
  }
  const soon = () => spray.looking(look);
  scroller.addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(soon).observe(scroller);
  return soon;
};

/** Put content anew into a place; what had the focus in it has it again, found by its key, position or turn. */
spray.refill = (place, render) => {
  const focusable = "a[href], button, input, select, textarea, [tabindex]";
  const at = place.contains(document.activeElement) ? document.activeElement : null;
  const turn = at ? [...place.querySelectorAll(focusable)].indexOf(at) : -1;
  const name = ["key", "position", "value"].find((one) => at?.dataset[one] !== undefined);
  const known = name && `[data-${name}="${CSS.escape(at.dataset[name])}"]`;
  render();
  if (turn < 0 || place.contains(document.activeElement)) return;
  const again = (known && place.querySelector(known)) || [...place.querySelectorAll(focusable)][turn];
  again?.focus({ preventScroll: true });
};
