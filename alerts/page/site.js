"use strict";
(() => {
  const form = document.querySelector("form");
  const words = document.getElementById("words");
  const found = document.getElementById("found");
  const articles = [...document.querySelectorAll("article")];
  const rows = [...document.querySelectorAll("nav tbody tr")];
  const text = new Map([...articles, ...rows].map((one) => [one, one.textContent.toLowerCase()]));
  const rowOf = new Map(rows.map((row) => [row.querySelector("a").hash.slice(1), row]));
  const shown = () => articles.filter((article) => !article.hidden);

  const search = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const article of articles) {
      const row = rowOf.get(article.id);
      const all = text.get(article) + " " + article.id.toLowerCase() + (row ? " " + text.get(row) : "");
      const hidden = !wanted.every((word) => all.includes(word));
      article.hidden = hidden;
      if (row) row.hidden = hidden;
    }
    found.value = wanted.length ? `${shown().length} of ${articles.length}` : "";
  };
  const all = () => { words.value = ""; search(); };

  form.hidden = false;
  words.addEventListener("input", search);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const first = shown()[0];
    if (!first) return;
    words.blur();
    location.hash = first.id;
    first.scrollIntoView();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== words) { event.preventDefault(); words.focus(); words.select(); }
    if (event.key === "Escape") all();
  });
  // A link to a runbook that the search has hidden shows it again.
  window.addEventListener("hashchange", () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.hidden) { all(); target.scrollIntoView(); }
  });
  window.addEventListener("beforeprint", all);
})();
