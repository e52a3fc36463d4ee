// The book is also read from a disk, by opening index.html. Browsers start no worker from there, and the search is one.
// SEARCH, the worker's source, is added to this file when the book is built.
if (location.protocol === "file:") {
  window.Worker = class extends window.Worker {
    constructor() {
      super(URL.createObjectURL(new Blob([SEARCH], { type: "text/javascript" })));
    }
  };
}
