import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

const server = process.env.FLOTILLA_URL ?? 'https://127.0.0.1:8443';

export default defineConfig({
  plugins: [react()],
  build: {
    target: 'es2023',
    sourcemap: false,
    // Inlined assets would need `data:` in the server's Content-Security-Policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: {
      '/api': {
        target: server,
        secure: false,
        changeOrigin: true,
        headers: { origin: server },
      },
    },
  },
  test: { include: ['src/**/*.test.ts', 'src/**/*.test.tsx'], environment: 'node' },
});
