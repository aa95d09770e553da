// The decoder of the compressed block that columns.py writes: a JSON header, then little-endian columns.

const KINDS = {
  u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i32: Int32Array, f32: Float32Array, f64: Float64Array,
};

/** Inflate zlib data; the promise resolves to an ArrayBuffer. */
async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** Return the running sums of an array, which undo the differences that columns.py stores. */
export function summed(differences) {
  const values = new Float64Array(differences.length);
  let value = 0;
  for (let i = 0; i < differences.length; i += 1) {
    value += differences[i];
    values[i] = value;
  }
  return values;
}

/** Return the header and the tables of a block: `{header, tables: {name: {column: typed array}}}`. */
export async function decode(bytes) {
  const buffer = await inflate(bytes);
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const tables = {};
  for (const [table, columns] of Object.entries(header.tables)) {
    tables[table] = {};
    for (const column of columns) {
      const raw = new KINDS[column.kind](buffer, 4 + length + column.offset, column.length);
      tables[table][column.name] = column.differences ? summed(raw) : raw;
    }
  }
  return { header, tables };
}

/** Return the bytes that a base64 text encodes. */
export function fromBase64(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
