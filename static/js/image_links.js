// "(series 2, image 52)" in a signed report leads to the image.
(() => {
  const PLACE = /\bseries (\d{1,9}), image (\d{1,9})\b/gi;
  const link = (article) => {
    const address = article.dataset.studyUrl;
    if (!address || article.dataset.linked) return;
    article.dataset.linked = "1";
    const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
    const nodes = [];
    while (walker.nextNode()) if (PLACE.test(walker.currentNode.data)) nodes.push(walker.currentNode);
    for (const node of nodes) {
      const parts = document.createDocumentFragment();
      let at = 0;
      for (const match of node.data.matchAll(PLACE)) {
        const anchor = document.createElement("a");
        anchor.href = `${address}?series=${match[1]}&image=${match[2]}`;
        [anchor.dataset.jump, anchor.dataset.series, anchor.dataset.image] = ["", match[1], match[2]];
        anchor.textContent = match[0];
        parts.append(node.data.slice(at, match.index), anchor);
        at = match.index + match[0].length;
      }
      parts.append(node.data.slice(at));
      node.replaceWith(parts);
    }
  };
  const linkAll = () => document.querySelectorAll("article.report[data-study-url]").forEach(link);
  document.addEventListener("DOMContentLoaded", linkAll);
  document.addEventListener("htmx:afterSwap", linkAll);
})();
