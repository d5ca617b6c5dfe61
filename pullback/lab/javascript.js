// What the programs of javascript.py call: a few functions over typed arrays, stored by rows.

const unpacked = (kind, text) => {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0))
  return new kind(bytes.buffer)
}

const inOrder = (array, table) => {
  const found = new array.constructor(table.length)
  for (let i = 0; i < table.length; i++) found[i] = array[table[i]]
  return found
}

const power = (x, n) => {
  let found = 1
  for (let base = x; n > 0; n >>= 1, base *= base) if (n & 1) found *= base
  return found
}

const evenly = x => {
  const low = Math.floor(x), rest = x - low
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1
}

// The place of an element of a window, from where the window starts; -1 beyond the operand.
const place = (starts, row, base, limits, strides, drop) => {
  for (let k = 0; k < limits.length; k++) {
    let start = starts[row * limits.length + k]
    if (start < 0 || start > limits[k]) {
      if (drop) return -1
      start = Math.min(Math.max(start, 0), limits[k])
    }
    base += start * strides[k]
  }
  return base
}

const taken = (array, at, missing) => at < 0 ? missing : array[at]

// The new rows of arrays where a loop goes on, and the old ones where it is done.
const unfinished = (going, made, kept) => made.map((array, n) => {
  const found = array.slice(), size = array.length / going.length
  going.forEach((on, row) => {
    if (!on) found.set(kept[n].subarray(row * size, (row + 1) * size), row * size)
  })
  return found
})

// The same for each of some matrices that lie one after the other.
const each = (count, given, kinds, sizes, one) => {
  const made = kinds.map((kind, n) => new kind(count * sizes[n]))
  for (let i = 0; i < count; i++) {
    const matrices = given.map(array => {
      const size = array.length / count
      return Float64Array.from(array.subarray(i * size, (i + 1) * size))
    })
    one(...matrices).forEach((found, n) => made[n].set(found, i * sizes[n]))
  }
  return made
}

// LU with the largest pivot of a column: both factors in one matrix, the pivots, the permutation.
const decomposed = ([a], [rows, columns]) => {
  const least = Math.min(rows, columns), pivots = [], order = [...Array(rows).keys()]
  for (let k = 0; k < least; k++) {
    let best = k
    for (let i = k + 1; i < rows; i++) {
      if (Math.abs(a[i * columns + k]) > Math.abs(a[best * columns + k])) best = i
    }
    pivots.push(best)
    if (best !== k) {
      [order[k], order[best]] = [order[best], order[k]]
      for (let j = 0; j < columns; j++) {
        [a[k * columns + j], a[best * columns + j]] = [a[best * columns + j], a[k * columns + j]]
      }
    }
    const pivot = a[k * columns + k]
    for (let i = k + 1; i < rows; i++) {
      if (pivot !== 0) a[i * columns + k] /= pivot
      const factor = a[i * columns + k]
      for (let j = k + 1; j < columns; j++) a[i * columns + j] -= factor * a[k * columns + j]
    }
  }
  return [a, pivots, order]
}

// Cholesky's lower factor; NaN where there is none.
const rooted = ([a], [n]) => {
  const found = new Float64Array(n * n)
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let left = a[i * n + j]
      for (let k = 0; k < j; k++) left -= found[i * n + k] * found[j * n + k]
      found[i * n + j] = i === j ? Math.sqrt(left) : left / found[j * n + j]
    }
  }
  return [found.some(Number.isNaN) ? found.fill(NaN) : found]
}

// op(A) X = B, or X op(A) = B, with a triangular A.
const substituted = ([a, b], [n], [rows, columns], leftSide, lower, transposed, unit) => {
  const entry = (i, j) => {
    if (i === j && unit) return 1
    if (transposed) [i, j] = [j, i]
    return (lower ? i >= j : i <= j) ? a[i * n + j] : 0
  }
  // X op(A) = B is op(A)ᵀ Xᵀ = Bᵀ.
  const of = leftSide ? entry : (i, j) => entry(j, i)
  const forward = leftSide ? lower !== transposed : lower === transposed
  const count = leftSide ? columns : rows
  const at = leftSide ? (i, c) => i * columns + c : (i, c) => c * columns + i
  const order = [...Array(n).keys()]
  if (!forward) order.reverse()
  for (let c = 0; c < count; c++) {
    order.forEach((i, done) => {
      let left = b[at(i, c)]
      for (let k = 0; k < done; k++) left -= of(i, order[k]) * b[at(order[k], c)]
      b[at(i, c)] = left / of(i, i)
    })
  }
  return [b]
}

// Eigenvectors and ascending eigenvalues of a symmetric matrix, by Jacobi's rotations.
const eigen = ([given], [n], lower) => {
  const a = new Float64Array(n * n), v = new Float64Array(n * n)
  for (let i = 0; i < n; i++) {
    v[i * n + i] = 1
    for (let j = 0; j < n; j++) {
      const [p, q] = lower === i >= j ? [i, j] : [j, i]
      a[i * n + j] = given[p * n + q]
    }
  }
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0, all = 0
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        const square = a[i * n + j] ** 2
        all += square
        if (i !== j) off += square
      }
    }
    if (!(off > 1e-30 * all)) break
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (a[p * n + q] === 0) continue
        const angle = 0.5 * Math.atan2(2 * a[p * n + q], a[q * n + q] - a[p * n + p])
        const c = Math.cos(angle), s = Math.sin(angle)
        for (let k = 0; k < n; k++) {
          const x = a[k * n + p], y = a[k * n + q]
          a[k * n + p] = c * x - s * y
          a[k * n + q] = s * x + c * y
        }
        for (let k = 0; k < n; k++) {
          const x = a[p * n + k], y = a[q * n + k]
          a[p * n + k] = c * x - s * y
          a[q * n + k] = s * x + c * y
        }
        for (let k = 0; k < n; k++) {
          const x = v[k * n + p], y = v[k * n + q]
          v[k * n + p] = c * x - s * y
          v[k * n + q] = s * x + c * y
        }
      }
    }
  }
  const order = [...Array(n).keys()].sort((i, j) => a[i * n + i] - a[j * n + j])
  const vectors = v.map((_, at) => v[Math.floor(at / n) * n + order[at % n]])
  return [vectors, order.map(i => a[i * n + i])]
}

// Rows of a table of places sorted by the first keys, NaN last; other arrays go along.
const sorted = (arrays, table, length, keys) => {
  const made = arrays.map(array => array.slice())
  const compare = (x, y) => x < y ? -1 : x > y ? 1 : x === y ? 0 : +(x !== x) - +(y !== y)
  for (let first = 0; first < table.length; first += length) {
    const places = table.subarray(first, first + length)
    const order = [...places].sort((p, q) => {
      for (let k = 0; k < keys; k++) {
        const found = compare(arrays[k][p], arrays[k][q])
        if (found) return found
      }
      return 0
    })
    made.forEach((array, n) => places.forEach((to, k) => { array[to] = arrays[n][order[k]] }))
  }
  return made
}

// Threefry-2x32 (Salmon et al. 2011), as JAX draws random bits.
const threefry = (size, ...given) => {
  const at = (x, i) => typeof x === "number" ? x : x[i]
  const first = new Uint32Array(size), second = new Uint32Array(size)
  const turns = [[13, 15, 26, 6], [17, 29, 16, 24]]
  for (let i = 0; i < size; i++) {
    const [k0, k1, x0, x1] = given.map(x => at(x, i))
    const keys = [k0, k1, (k0 ^ k1 ^ 0x1BD11BDA) >>> 0]
    let a = (x0 + keys[0]) >>> 0, b = (x1 + keys[1]) >>> 0
    for (let round = 0; round < 5; round++) {
      for (const turn of turns[round % 2]) {
        a = (a + b) >>> 0
        b = ((b << turn) | (b >>> (32 - turn))) >>> 0
        b = (a ^ b) >>> 0
      }
      a = (a + keys[(round + 1) % 3]) >>> 0
      b = (b + keys[(round + 2) % 3] + round + 1) >>> 0
    }
    first[i] = a
    second[i] = b
  }
  return [first, second]
}
