"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    if (name) made.className = name;
    return made;
  };
  const groups = document.getElementById("groups");
  const found = document.getElementById("found");
  const original = [...groups.children].map((section) => ({
    section,
    bodies: all("tbody", section).map((body) => ({ body, rows: [...body.rows] })),
  }));
  const rows = original.flatMap(({ bodies }) => bodies.flatMap((each) => each.rows));
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const sample = groups.querySelector("table");

  const cell = (row, number) => row.cells[number].textContent.trim();
  const keys = {
    namespace: (row) => cell(row, 0),
    owner: (row) => cell(row, 5) || "no owner",
    reason: (row) => row.querySelector("a") ? row.querySelector("a").textContent : "none",
  };

  const count = (section) => {
    const within = all("tbody tr", section);
    const shown = within.filter((row) => !row.hidden).length;
    const said = section.querySelector("summary span");
    said.textContent = shown === within.length ? `${shown}` : `${shown} of ${within.length}`;
    for (const table of all("table", section)) table.hidden = all("tbody tr", table).every((row) => row.hidden);
    section.hidden = shown === 0;
  };
  const filter = () => {
    const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      shown += !row.hidden;
    }
    all(":scope > details", groups).forEach(count);
    found.textContent = `${shown} of ${rows.length} rows`;
  };

  const group = () => {
    const by = document.getElementById("by").value;
    if (!(by in keys)) {
      for (const { bodies } of original) for (const each of bodies) each.body.append(...each.rows);
      groups.replaceChildren(...original.map((each) => each.section));
    } else if (sample) {
      const parts = new Map();
      for (const row of rows) {
        const key = keys[by](row);
        if (!parts.has(key)) parts.set(key, []);
        parts.get(key).push(row);
      }
      const names = [...parts.keys()].sort((a, b) => a.localeCompare(b));
      groups.replaceChildren(...names.map((name) => {
        const section = make("details", "", "group");
        section.open = true;
        const summary = make("summary");
        summary.append(make("h2", name), make("span"));
        const table = sample.cloneNode(false);
        const caption = make("caption", `Workloads by ${by}: ${name}`);
        const body = make("tbody");
        body.append(...parts.get(name));
        table.append(caption, sample.tHead.cloneNode(true), body);
        for (const head of all("th", table)) head.removeAttribute("aria-sort");
        section.append(summary, table);
        return section;
      }));
    }
    filter();
  };

  const sort = (head) => {
    const table = head.closest("table");
    const number = [...head.parentNode.children].indexOf(head);
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const each of all("th", table)) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const order = new Intl.Collator(undefined, { numeric: true }).compare;
    const sorted = [...table.tBodies[0].rows].sort((a, b) => order(cell(a, number), cell(b, number)));
    table.tBodies[0].append(...(up ? sorted : sorted.reverse()));
  };

  for (const head of all("thead th")) {
    const button = make("button", head.textContent);
    button.type = "button";
    head.replaceChildren(button);
  }
  groups.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (head) sort(head);
  });
  document.getElementById("filter").addEventListener("input", filter);
  document.getElementById("by").addEventListener("change", group);
  for (const button of all("button[data-copy]")) {
    button.hidden = false;
    const text = document.getElementById(button.dataset.copy);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected: press Ctrl+C";
      }
    });
  }
  addEventListener("beforeprint", () => all("details").forEach((each) => { each.open = true; }));
  document.getElementById("tools").hidden = false;
  filter();
})();
