// A folder that is chosen or dropped becomes a .zip, so that its folders reach the server as classes. Photos are stored
// as they are, which the readers of archives take. gradio itself would send the photos without their folders.
(() => {
  const MOST_FILES = 65535, MOST_BYTES = 2 ** 32 - 2 ** 24; // Of a .zip without extensions.
  const IMAGE = /^[^.].*\.(jpe?g|jfif|png|webp|bmp|gif|tiff?|ppm|pgm|pbm)$/i;
  const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
    return n >>> 0;
  });

  const crc32 = (bytes) => {
    let crc = 0xffffffff;
    for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
    return (crc ^ 0xffffffff) >>> 0;
  };

  // Little-endian fields, each [value, bytes].
  const packed = (fields) => {
    const view = new DataView(new ArrayBuffer(fields.reduce((sum, [, size]) => sum + size, 0)));
    let at = 0;
    for (const [value, size] of fields) {
      size === 4 ? view.setUint32(at, value, true) : view.setUint16(at, value, true);
      at += size;
    }
    return view.buffer;
  };

  async function zipped(files) {
    const parts = [], directory = [];
    let offset = 0;
    for (const [path, file] of files) {
      const name = new TextEncoder().encode(path);
      const crc = crc32(new Uint8Array(await file.arrayBuffer()));
      // Version, UTF-8 names, stored, midnight of 1 January 1980, checksum, both sizes, lengths of name and extra field.
      const common = [[20, 2], [0x800, 2], [0, 2], [0, 2], [33, 2], [crc, 4], [file.size, 4], [file.size, 4], [name.length, 2], [0, 2]];
      parts.push(packed([[0x04034b50, 4], ...common]), name, file);
      directory.push(packed([[0x02014b50, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]]), name);
      offset += 30 + name.length + file.size;
    }
    const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
    const end = [[0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [size, 4], [offset, 4], [0, 2]];
    return new Blob([...parts, ...directory, packed(end)], { type: "application/zip" });
  }

  async function walk(entry, found) {
    if (entry.isFile) {
      found.push([entry.fullPath.slice(1), await new Promise((resolve, reject) => entry.file(resolve, reject))]);
      return;
    }
    const reader = entry.createReader();
    for (;;) { // A hundred at a time.
      const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!entries.length) return;
      for (const each of entries) await walk(each, found);
    }
  }

  async function send(found) {
    const said = document.querySelector("#train-folder .said");
    const files = found.filter(([, file]) => IMAGE.test(file.name));
    const bytes = files.reduce((sum, [, file]) => sum + file.size, 0);
    if (!files.length) return (said.textContent = "There are no photos in this folder.");
    if (files.length > MOST_FILES || bytes > MOST_BYTES)
      return (said.textContent = "This folder is too large for the page: undiffuse train --data takes it as it is.");
    said.textContent = `Packing ${files.length.toLocaleString()} photos ...`;
    const archive = await zipped(files);
    said.textContent = "";
    document.querySelector("#train-files button[aria-label=Clear]")?.click();
    await new Promise((resolve) => setTimeout(resolve, 100));
    const transfer = new DataTransfer();
    transfer.items.add(new File([archive], `${files[0][0].split("/")[0]}.zip`, { type: "application/zip" }));
    const input = document.querySelector("#train-files input[type=file]");
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  document.addEventListener("change", (event) => {
    if (event.target.matches?.("#train-folder input"))
      send([...event.target.files].map((file) => [file.webkitRelativePath, file]));
  });

  document.addEventListener("drop", async (event) => {
    if (!event.target.closest?.("#train-files")) return;
    const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!entries.some((entry) => entry.isDirectory)) return;
    event.preventDefault();
    event.stopPropagation();
    const found = [];
    for (const entry of entries) await walk(entry, found);
    await send(found);
  }, true);
})();
