// a click on a column's head sorts by it, numbers by value; a second click turns the order round
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = cell => {
    const text = cell.textContent.trim(), number = parseFloat(text.replace(/[,<]/g, ""));
    return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const order = (a, b) => a === null || b === null ? (a === null) - (b === null)
    : typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.classList.contains("right") ? "descending" : "ascending";
      const now = head.getAttribute("aria-sort");
      const next = now === null ? first : now === "ascending" ? "descending" : "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", next);
      const rows = [...body.rows].map(row => [value(row.cells[column]), row]);
      const sign = next === "ascending" ? 1 : -1;
      rows.sort((a, b) => (a[0] === null || b[0] === null ? 1 : sign) * order(a[0], b[0]));
      body.append(...rows.map(row => row[1]));
    });
  });
}
