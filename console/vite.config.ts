import react from '@vitejs/plugin-react'
import { defineConfig } from 'vitest/config'

// One file for each part, without hashes in names: an ETag says whether a browser has the newest (docs/decisions/0125).
const names = { entryFileNames: 'app.js', chunkFileNames: '[name].js', assetFileNames: '[name][extname]' }

export default defineConfig({
  plugins: [react()],
  base: '/console/',
  experimental: {
    // Scripts find each other beside themselves, so that a proxy may serve all under a prefix.
    renderBuiltUrl: (file, { hostType }) => (hostType === 'html' ? `/console/${file}` : { relative: true }),
  },
  build: {
    outDir: '../api/http/console',
    emptyOutDir: true,
    target: 'es2022',
    sourcemap: false,
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    rolldownOptions: { output: names },
  },
  worker: { format: 'es', rolldownOptions: { output: { entryFileNames: '[name].js' } } },
  // `npm run dev` beside `make up`.
  server: { proxy: { '/v1': { target: 'http://127.0.0.1:8700', ws: true }, '/health': 'http://127.0.0.1:8700' } },
  test: { environment: 'happy-dom', include: ['src/**/*.test.{ts,tsx}'] },
})
