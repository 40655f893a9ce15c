// A click on a column's head sorts the table by it; a second click turns the order round.
for (const head of document.querySelectorAll("table.sortable th")) {
  const sort = () => {
    const up = head.ariaSort !== "ascending", body = head.closest("table").tBodies[0];
    const key = row => {
      const text = row.cells[head.cellIndex].innerText.trim(), n = parseFloat(text.replace(/^[<+]\s*|,/g, ""));
      return isNaN(n) || head.className !== "number" ? [1, text.toLowerCase()] : [0, n];
    };
    const rows = [...body.rows].map(row => [key(row), row]);
    rows.sort(([a], [b]) => (a[0] - b[0] || (a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0)) * (up ? 1 : -1));
    for (const other of head.parentNode.cells) other.ariaSort = null;
    head.ariaSort = up ? "ascending" : "descending";
    body.append(...rows.map(([, row]) => row));
  };
  head.tabIndex = 0;
  head.onclick = sort;
  head.onkeydown = event => { if (event.key === "Enter") sort(); };
}
