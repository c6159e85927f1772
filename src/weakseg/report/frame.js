for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const up = head.ariaSort === "descending" || (head.ariaSort !== "ascending" && column === 0);
    const value = row => row.cells[column].dataset.v;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return up ? x - y : y - x;
    });
    heads.forEach(h => h.ariaSort = "none");
    head.ariaSort = up ? "ascending" : "descending";
    table.tBodies[0].append(...rows);
  }));
}
const dialog = document.querySelector("dialog");
let current;
function show(button) {
  current = button;
  const image = button.querySelector("img"), large = dialog.querySelector("img");
  large.src = image.src;
  large.alt = image.alt;
  dialog.querySelector("figcaption").textContent = image.alt;
  if (!dialog.open) dialog.showModal();
}
const buttons = [...document.querySelectorAll(".zoom")];
buttons.forEach(button => button.addEventListener("click", () => show(button)));
dialog.addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", event => {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  const next = step && buttons[buttons.indexOf(current) + step];
  if (next) show(next);
});
