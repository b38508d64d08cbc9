// Asks for the same page again and puts what is new in the place of what is old: the reader's place, focus and
// selection stay. Without this file the page works as well, and a browser without scripts loads it anew.
const seconds = Number(document.body.dataset.refreshSeconds);
const lost = document.getElementById("lost");

async function renew() {
  if (document.hidden || getSelection().type === "Range") return;
  let page;
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(30_000) });
    page = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    lost.hidden = false;
    return;
  }
  lost.hidden = true;
  document.title = page.title;
  for (const id of ["headline", "clock", "live"]) {
    const old = document.getElementById(id);
    const fresh = page.getElementById(id);
    if (!fresh || old.innerHTML === fresh.innerHTML) continue;
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...old.querySelectorAll(".wide")].map((table) => [table.id, table.scrollLeft]);
    old.replaceChildren(...fresh.childNodes);
    for (const [table, left] of scrolled) document.getElementById(table)?.scrollTo({ left });
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
}

async function forever() {
  for (;;) {
    await new Promise((wake) => setTimeout(wake, seconds * 1000));
    await renew();
  }
}

forever();
