// suggests names that begin as what is typed; the form works without it
const input = document.getElementById("name"), list = document.getElementById("names");
let last = 0;
input.addEventListener("input", async () => {
  const asked = ++last, start = input.value.trim();
  await new Promise(go => setTimeout(go, 120));
  if (asked !== last || !start) return;
  const answer = await fetch("names?start=" + encodeURIComponent(start)).catch(() => null);
  if (asked !== last || !answer || !answer.ok) return;
  const found = await answer.json(), kinds = new Map();
  for (const side of ["users", "items"]) for (const name of found[side])
    kinds.set(name, kinds.has(name) ? "user and item" : side === "users" ? "user" : "item");
  list.replaceChildren(...[...kinds].map(([name, kind]) => new Option(kind, name)));
});
