// Flame charts of the page's data: an element for each part that is wide enough to be seen.
for (const root of JSON.parse(document.getElementById("profile").textContent)) flame(root);

function flame(root) {
  const narrowest = 2; // pixels of what is drawn
  const rowHeight = 1.5; // rem
  const chart = document.createElement("div");
  const figures = document.createElement("div");
  const shown = new Map(); // the elements of parts
  let zoomed = root;

  chart.className = "chart";
  chart.setAttribute("role", "tree");
  chart.setAttribute("aria-label", `flame chart: ${root.name}`);
  figures.className = "figures";
  figures.setAttribute("aria-live", "polite");
  document.getElementById("flames").append(chart, figures);
  link(root, null);
  draw();
  tell(root);
  addEventListener("resize", draw);

  function link(span, parent) {
    span.parent = parent;
    for (const child of span.children ?? []) link(child, span);
  }

  function path(span) {
    return span ? [...path(span.parent), span] : [];
  }

  function draw() {
    const above = path(zoomed.parent);
    const width = chart.clientWidth;
    const focused = document.activeElement?.span;
    let rows = 0;
    shown.clear();
    chart.replaceChildren();
    above.forEach((span, row) => add(span, row, 0, width, "above"));
    place(zoomed, above.length, 0, width);
    chart.style.height = `${rows * rowHeight}rem`;
    (shown.get(focused) ?? shown.get(zoomed)).tabIndex = 0;
    if (focused && path(focused)[0] === root) (shown.get(focused) ?? shown.get(zoomed)).focus();

    function place(span, row, left, wide) {
      add(span, row, left, wide, "");
      let at = left;
      for (const child of span.children ?? []) {
        const part = (child.ms / span.ms) * wide;
        if (part >= narrowest) place(child, row + 1, at, part);
        at += part;
      }
    }

    function add(span, row, left, wide, mark) {
      const element = document.createElement("button");
      element.type = "button";
      element.className = `span ${span.kind} ${mark}`;
      element.style.left = `${left}px`;
      element.style.width = `${wide}px`;
      element.style.top = `${row * rowHeight}rem`;
      element.textContent = wide > 24 ? span.name : "";
      if (wide <= 24) element.style.padding = 0; // or it would be as wide as its padding
      element.tabIndex = -1;
      element.setAttribute("role", "treeitem");
      element.setAttribute("aria-level", row + 1);
      element.setAttribute("aria-label", lines(span).join(", "));
      element.span = span;
      element.addEventListener("click", () => zoom(span));
      element.addEventListener("mouseenter", () => tell(span));
      element.addEventListener("focus", () => tell(span));
      chart.append(element);
      shown.set(span, element);
      rows = Math.max(rows, row + 1);
    }
  }

  function zoom(span) {
    zoomed = span;
    draw();
    focus(span);
  }

  function focus(span) {
    const element = shown.get(span);
    if (!element) return;
    for (const other of shown.values()) other.tabIndex = -1;
    element.tabIndex = 0;
    element.focus();
  }

  chart.addEventListener("keydown", (event) => {
    const span = event.target.span;
    const beside = (span.parent?.children ?? [span]).filter((other) => shown.has(other));
    const at = beside.indexOf(span);
    const moves = {
      ArrowLeft: () => focus(beside[at - 1]),
      ArrowRight: () => focus(beside[at + 1]),
      ArrowUp: () => focus(span.parent),
      ArrowDown: () => focus((span.children ?? []).find((child) => shown.has(child))),
      Escape: () => zoom(root),
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  });

  function lines(span) {
    const share = (whole) => `${((100 * span.ms) / whole.ms).toFixed(1)}% of ${whole.name}`;
    const counted = [
      `${number(span.ms)} ms`,
      span === root ? "" : share(root),
      span.parent && span.parent !== root ? share(span.parent) : "",
      span.operations ? `${number(span.operations / 1e6)} MFLOP` : "",
      span.bytes ? `${number(span.bytes / 1e6)} MB` : "",
      span.floor_ms ? `floor ${number(span.floor_ms)} ms` : "",
    ];
    const names = path(span).map((part) => part.name).join(" › ");
    return [names, `${span.kind}${span.detail ? `: ${span.detail}` : ""}`,
            counted.filter(Boolean).join("; ")];
  }

  function number(value) {
    return value >= 1 ? Number(value.toPrecision(3)).toLocaleString("en") : value.toFixed(4);
  }

  function tell(span) {
    const [names, what, counted] = lines(span);
    const name = document.createElement("strong");
    name.textContent = names;
    const rest = [what, counted].map((text) => {
      const line = document.createElement("span");
      line.textContent = text;
      return line;
    });
    figures.replaceChildren(name, rest[0], document.createElement("br"), rest[1]);
  }
}
